//! Confirms and records missing and damaged objects. A version is marked only after a second check, and never
//! because a store is unreachable. Every way to find damage records it here, so that it raises the same alert.

use bytes::Bytes;
use futures::StreamExt;

use crate::{
    app::{App, Error},
    db::{
        Database, DbError, Viewer,
        blob_claims::{self, BlobClaim},
        blobs::Blob,
        content_states,
    },
    domain::{
        block_checksums::BlockChecksums, digest::ObjectHashes, file::StateReason, ids::TenantId,
        object_hasher::ObjectHasher,
    },
    storage::{ObjectStorage, ObjectStorageExt, StorageError},
    telemetry::{Metrics, metrics::ScrubOutcome},
};

/// A suspected problem of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app) enum Suspicion {
    /// The object seems to be missing, or to have another length.
    Length,
    /// The bytes do not match their checksum.
    Checksum,
}

/// The result of the check of a suspicion.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::app) enum CheckedSuspicion {
    /// The object is missing or damaged.
    Confirmed(StateReason),
    /// All bytes were read, and match their record. Contains the checksums of their blocks, if there are several.
    Refuted(Option<BlockChecksums>),
    /// The object exists and has its length, but its bytes were not compared, or the read ended early. That proves
    /// nothing about them.
    Open,
}

/// Checks a suspicion.
///
/// A missing object is confirmed with two requests, because some stores return the same response to the first
/// one if the whole bucket is missing. Damaged bytes are confirmed by reading the whole object again.
///
/// # Errors
/// Returns an error if the store is unreachable. Nothing is known about the object then.
pub(in crate::app) async fn check_suspicion(
    store: &dyn ObjectStorage,
    blob: &Blob,
    suspicion: Suspicion,
) -> Result<CheckedSuspicion, StorageError> {
    let size_bytes = match store.find_object(&blob.key).await? {
        Some(info) => info.size_bytes,
        None => {
            let listed = store.list(blob.key.as_str(), None, 1).await?;
            let exists = listed.objects.iter().any(|object| object.key == blob.key);
            return Ok(match exists {
                true => CheckedSuspicion::Open,
                false => CheckedSuspicion::Confirmed(StateReason::ObjectMissing),
            });
        }
    };
    if size_bytes != blob.size_bytes {
        return Ok(CheckedSuspicion::Confirmed(StateReason::ObjectDamaged));
    }
    if suspicion == Suspicion::Length {
        return Ok(CheckedSuspicion::Open);
    }
    Ok(match compare_object(store, blob).await? {
        Some(ComparedObject { is_intact: Some(true), block_checksums }) => {
            CheckedSuspicion::Refuted(block_checksums)
        }
        Some(ComparedObject { is_intact: Some(false), .. }) => {
            CheckedSuspicion::Confirmed(StateReason::ObjectDamaged)
        }
        Some(ComparedObject { is_intact: None, .. }) | None => CheckedSuspicion::Open,
    })
}

/// Returns whether an object matches its record; `None` if the record has no hashes or if the read ended early, which
/// proves nothing.
///
/// # Errors
/// Returns an error if the store is unreachable.
pub(in crate::app) async fn is_intact(
    store: &dyn ObjectStorage,
    blob: &Blob,
) -> Result<Option<bool>, StorageError> {
    Ok(compare_object(store, blob).await?.and_then(|compared| compared.is_intact))
}

/// Reads an object and compares it with its record. Returns `None` if the record has no hashes.
async fn compare_object(
    store: &dyn ObjectStorage,
    blob: &Blob,
) -> Result<Option<ComparedObject>, StorageError> {
    let Some(mut comparison) = ObjectComparison::with_record(blob) else { return Ok(None) };
    let mut bytes = store.get(&blob.key, 0..blob.size_bytes).await?;
    while let Some(chunk) = bytes.next().await {
        comparison.consume(&chunk?);
    }
    Ok(Some(comparison.finish()))
}

/// Compares the bytes of a whole object with its record.
pub(in crate::app) struct ObjectComparison {
    recorded: ObjectHashes,
    size_bytes: u64,
    hasher: ObjectHasher,
}

/// The result of a comparison.
pub(in crate::app) struct ComparedObject {
    /// `None` if the read ended early, which proves nothing.
    pub(in crate::app) is_intact: Option<bool>,
    /// The checksums of the blocks, if the object has several.
    pub(in crate::app) block_checksums: Option<BlockChecksums>,
}

impl ObjectComparison {
    /// Returns `None` if the record has no hashes.
    pub(in crate::app) fn with_record(blob: &Blob) -> Option<Self> {
        Some(Self { recorded: blob.hashes?, size_bytes: blob.size_bytes, hasher: ObjectHasher::default() })
    }

    /// Consumes the next bytes. This is the one place that sees all bytes of an object that is verified.
    pub(in crate::app) fn consume(&mut self, chunk: &Bytes) {
        self.hasher.update(chunk);
    }

    /// Returns whether the object is intact.
    pub(in crate::app) fn finish(self) -> ComparedObject {
        let found = self.hasher.finish();
        let is_whole = found.size_bytes == self.size_bytes;
        ComparedObject {
            is_intact: is_whole.then_some(found.hashes == self.recorded),
            block_checksums: found.block_checksums,
        }
    }
}

/// A suspicion that was checked, and its damage recorded.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::app) enum RecordedSuspicion {
    /// The object is missing or damaged.
    Damaged {
        /// The number of versions that changed to ERROR.
        version_count: usize,
    },
    /// All bytes were read, and match their record. Contains the checksums of their blocks, if there are several.
    Intact(Option<BlockChecksums>),
    /// Not all bytes were compared. That proves nothing about them.
    Unproven,
}

/// Records damage, and raises the alert.
#[derive(Clone, Copy)]
pub(in crate::app) struct DamageRecorder<'a> {
    pub(in crate::app) db: &'a Database,
    pub(in crate::app) metrics: &'a Metrics,
}

impl<'a> DamageRecorder<'a> {
    pub(in crate::app) fn of(app: &'a App) -> Self {
        Self { db: &app.db, metrics: &app.metrics }
    }

    /// Checks a suspicion, and marks the versions of a blob whose problem is confirmed. If the claim of the work is
    /// given and was lost in the meantime, nothing is marked: another process may have a newer result.
    ///
    /// # Errors
    /// Returns an error if the store or the database is unreachable. Nothing is known about the object then.
    pub(in crate::app) async fn check_and_mark(
        self,
        store: &dyn ObjectStorage,
        tenant: TenantId,
        blob: &Blob,
        suspicion: Suspicion,
        claim: Option<BlobClaim>,
    ) -> Result<RecordedSuspicion, Error> {
        let reason = match check_suspicion(store, blob, suspicion).await? {
            CheckedSuspicion::Confirmed(reason) => reason,
            CheckedSuspicion::Refuted(blocks) => return Ok(RecordedSuspicion::Intact(blocks)),
            CheckedSuspicion::Open => return Ok(RecordedSuspicion::Unproven),
        };
        let version_count = mark_damaged(self.db, tenant, blob, reason, claim).await?;
        if version_count > 0 {
            self.raise_alert(&blob.provider);
            tracing::error!(
                %tenant, provider = blob.provider, key = %blob.key, %reason, versions = version_count,
                "found missing or damaged object, and changed its versions to ERROR; background work repairs it from its \
                 copy; without a copy, restore it from a backup and run `strongroom fsck --repair`"
            );
        }
        Ok(RecordedSuspicion::Damaged { version_count })
    }

    /// Counts a missing or damaged object, on which the alert `StrongroomBlobDamaged` depends. Nothing else counts them.
    pub(in crate::app) fn raise_alert(self, provider: &str) {
        self.metrics.count_scrubbed(provider, ScrubOutcome::Damaged);
    }
}

/// Marks the versions of a blob as missing or damaged, and returns their number.
async fn mark_damaged(
    db: &Database,
    tenant: TenantId,
    blob: &Blob,
    reason: StateReason,
    claim: Option<BlobClaim>,
) -> Result<usize, DbError> {
    let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
    let marked = content_states::mark_damaged(&mut tx, blob, reason).await;
    if let Some(claim) = claim
        && marked.is_ok()
        && !blob_claims::is_held(&mut tx, claim).await?
    {
        // Without a commit, nothing is marked.
        return Ok(0);
    }
    tx.finish(marked).await
}
