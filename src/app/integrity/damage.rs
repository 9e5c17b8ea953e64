//! Confirms and records missing and damaged objects. A version is marked only after a second check, and never
//! because a store is unreachable.

use std::sync::Arc;

use futures::StreamExt;

use crate::{
    app::App,
    db::{Database, DbError, Viewer, blob_checksums, blobs::Blob, content_states},
    domain::{
        checksum::Crc64Hasher,
        digest::{Hasher, ObjectHashes},
        file::StateReason,
        ids::TenantId,
    },
    storage::{ObjectStorage, ObjectStorageExt, StorageError},
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
    let Some(recorded) = blob.hashes else { return Ok(None) };
    let (mut sha256, mut crc64nvme, mut read_bytes) = (Hasher::default(), Crc64Hasher::default(), 0);
    let mut bytes = store.get(&blob.key, 0..blob.size_bytes).await?;
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk?;
        sha256.update(&chunk);
        crc64nvme.update(&chunk);
        read_bytes += chunk.len() as u64;
    }
    if read_bytes != blob.size_bytes {
        return Ok(None);
    }
    let found = ObjectHashes { sha256: sha256.finish(), crc64nvme: crc64nvme.finish() };
    Ok(Some(found == recorded))
}

/// Marks the versions of a blob as missing or damaged, and returns their number.
pub(in crate::app) async fn mark_damaged(
    db: &Database,
    tenant: TenantId,
    blob: &Blob,
    reason: StateReason,
) -> Result<usize, DbError> {
    let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
    let marked = content_states::mark_damaged(&mut tx, blob, reason).await;
    tx.finish(marked).await
}

/// Deletes the checksums of the blocks of an intact object that differed from them twice. They may be wrong, and a wrong
/// checksum would make the file unreadable. Continuous verification computes them again.
pub(in crate::app) async fn distrust_block_checksums(db: &Database, tenant: TenantId, blob: &Blob) {
    let deleted = async {
        let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
        let deleted = blob_checksums::delete(&mut tx, blob.id).await;
        tx.finish(deleted).await
    };
    let key = &blob.key;
    match deleted.await {
        Ok(true) => tracing::error!(%tenant, %key, "deleted the block checksums of an intact object"),
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
            let reason = match confirm_damage(store.as_ref(), &blob, suspicion).await {
                Ok(Some(reason)) => reason,
                Ok(None) => {
                    tracing::warn!(%tenant, %key, ?suspicion, "rechecked a suspect object; it is intact");
                    if suspicion == Suspicion::Checksum {
                        distrust_block_checksums(&app.db, tenant, &blob).await;
                    }
                    return;
                }
                Err(error) => {
                    return tracing::warn!(%tenant, %key, %error, "failed to recheck suspect object");
                }
            };
            match mark_damaged(&app.db, tenant, &blob, reason).await {
                Ok(versions) => {
                    tracing::error!(%tenant, %key, %reason, versions, "found missing or damaged object")
                }
                Err(error) => tracing::warn!(%tenant, %key, %error, "failed to mark damaged object"),
            }
        };
        tasks.spawn(tracing::Instrument::instrument(recheck, tracing::Span::current()));
    }
}
