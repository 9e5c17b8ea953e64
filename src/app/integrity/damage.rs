//! Confirms and records missing and damaged objects. A version is marked only after a second check, and never
//! because a store is unreachable.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use crate::{
    app::{App, Error},
    db::{
        Database, DbError, Viewer, blob_checksums,
        blob_claims::{self, BlobClaim},
        blobs::Blob,
        content_states,
    },
    domain::{
        block_checksums::BlockChecksums, digest::ObjectHashes, file::StateReason, ids::TenantId,
        object_hasher::ObjectHasher,
    },
    storage::{ObjectStorage, ObjectStorageExt, StorageError},
    telemetry::metrics::ScrubOutcome,
};

/// A suspected problem of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app) enum Suspicion {
    /// The object seems to be missing, or to have another length.
    Length,
    /// The bytes do not match their checksum.
    Checksum,
}

/// Checks a suspicion. Returns the confirmed problem of the object, or `None` if it is intact.
///
/// A missing object is confirmed with two requests, because some stores return the same response to the first
/// one if the whole bucket is missing. Damaged bytes are confirmed by reading the whole object again.
///
/// # Errors
/// Returns an error if the store is unreachable. Nothing is known about the object then.
pub(in crate::app) async fn confirm_damage(
    store: &dyn ObjectStorage,
    blob: &Blob,
    suspicion: Suspicion,
) -> Result<Option<StateReason>, StorageError> {
    let size_bytes = match store.find_object(&blob.key).await? {
        Some(info) => info.size_bytes,
        None => {
            let listed = store.list(blob.key.as_str(), None, 1).await?;
            let exists = listed.objects.iter().any(|object| object.key == blob.key);
            return Ok((!exists).then_some(StateReason::ObjectMissing));
        }
    };
    if size_bytes != blob.size_bytes {
        return Ok(Some(StateReason::ObjectDamaged));
    }
    match suspicion {
        Suspicion::Length => Ok(None),
        Suspicion::Checksum => {
            Ok((is_intact(store, blob).await? == Some(false)).then_some(StateReason::ObjectDamaged))
        }
    }
}

/// Reads an object and compares it with its record. Returns `None` if the record has no hashes or if the read
/// ended early, which proves nothing.
///
/// # Errors
/// Returns an error if the store is unreachable.
pub(in crate::app) async fn is_intact(
    store: &dyn ObjectStorage,
    blob: &Blob,
) -> Result<Option<bool>, StorageError> {
    let Some(mut comparison) = ObjectComparison::with_record(blob) else { return Ok(None) };
    let mut bytes = store.get(&blob.key, 0..blob.size_bytes).await?;
    while let Some(chunk) = bytes.next().await {
        comparison.consume(&chunk?);
    }
    Ok(comparison.finish().is_intact)
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

/// Damage that was confirmed and recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app) struct RecordedDamage {
    pub(in crate::app) reason: StateReason,
    /// The number of versions that changed to ERROR.
    pub(in crate::app) version_count: usize,
}

/// Checks a suspicion, and marks the versions of a blob whose problem is confirmed. Returns `None` if it is not. If the
/// claim of the work is given and was lost in the meantime, nothing is marked: another process may have a newer result.
///
/// # Errors
/// Returns an error if the store or the database is unreachable. Nothing is known about the object then.
pub(in crate::app) async fn confirm_and_mark(
    db: &Database,
    store: &dyn ObjectStorage,
    tenant: TenantId,
    blob: &Blob,
    suspicion: Suspicion,
    claim: Option<BlobClaim>,
) -> Result<Option<RecordedDamage>, Error> {
    let Some(reason) = confirm_damage(store, blob, suspicion).await? else { return Ok(None) };
    let version_count = mark_damaged(db, tenant, blob, reason, claim).await?;
    if version_count > 0 {
        tracing::error!(
            %tenant, provider = blob.provider, key = %blob.key, %reason, versions = version_count,
            "found missing or damaged object, and changed its versions to ERROR; background work repairs it from its \
             copy; without a copy, restore it from a backup and run `strongroom fsck --repair`"
        );
    }
    Ok(Some(RecordedDamage { reason, version_count }))
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

/// Deletes the checksums of the blocks of an intact object that differed from them twice. They may be wrong, and a
/// wrong checksum would make the file unreadable. Scrubbing computes them again.
pub(in crate::app) async fn distrust_block_checksums(db: &Database, tenant: TenantId, blob: &Blob) {
    let deleted = async {
        let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
        let deleted = blob_checksums::delete(&mut tx, blob.id).await;
        tx.finish(deleted).await
    };
    let key = &blob.key;
    match deleted.await {
        Ok(true) => tracing::error!(%tenant, %key, "deleted wrong block checksums of an intact object"),
        Ok(false) => {}
        Err(error) => tracing::warn!(%tenant, %key, %error, "failed to delete block checksums"),
    }
}

/// An object that is being read, and that may be missing or damaged.
#[derive(Clone)]
pub(in crate::app) struct SuspectObject {
    pub(in crate::app) app: Arc<App>,
    pub(in crate::app) tenant: TenantId,
    /// The store as background work uses it.
    pub(in crate::app) store: Arc<dyn ObjectStorage>,
    pub(in crate::app) blob: Blob,
}

impl SuspectObject {
    /// Checks the object again in the background and records a confirmed problem. The reader does not wait
    /// for it: if the check fails, the next reader or `fsck` finds the problem.
    pub(in crate::app) fn recheck_in_background(&self, suspicion: Suspicion) {
        let Self { app, tenant, store, blob } = self.clone();
        let tasks = app.tasks.clone();
        let recheck = async move {
            let key = &blob.key;
            match confirm_and_mark(&app.db, store.as_ref(), tenant, &blob, suspicion, None).await {
                // The repair of the blob from its copy finds it by the state of its versions.
                Ok(Some(damage)) if damage.version_count > 0 => {
                    app.metrics.count_scrubbed(&blob.provider, ScrubOutcome::Damaged);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    tracing::warn!(%tenant, %key, ?suspicion, "read a suspect object again, and found it intact");
                    if suspicion == Suspicion::Checksum {
                        distrust_block_checksums(&app.db, tenant, &blob).await;
                    }
                }
                Err(error) => tracing::warn!(%tenant, %key, %error, "failed to read a suspect object again"),
            }
        };
        tasks.spawn(tracing::Instrument::instrument(recheck, tracing::Span::current()));
    }
}
