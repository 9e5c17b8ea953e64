//! What is missing or damaged in the store says so in the database, and only then: never because a store is away, and never by
//! one read alone.

use std::sync::Arc;

use futures::StreamExt;

use crate::{
    app::App,
    db::{Database, DbError, Viewer, blobs::Blob, content_states},
    domain::{checksum::Crc64Hasher, digest::Hasher, file::StateReason, ids::TenantId},
    storage::{ObjectStorage, StorageError, StorageErrorKind},
};

/// What somebody noticed about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app) enum Suspicion {
    /// It seems to be gone, or to have another length.
    Length,
    /// Its bytes do not fit their checksum.
    Checksum,
}

/// What is wrong with an object for certain, if anything is.
///
/// That it is missing is told by two questions: some stores answer the first of them alike when the whole bucket is missing.
/// That its bytes are others than recorded is told by a second read of all of them.
///
/// # Errors
/// When the store does not answer: then nothing is known.
pub(in crate::app) async fn confirm(
    store: &dyn ObjectStorage,
    blob: &Blob,
    suspicion: Suspicion,
) -> Result<Option<StateReason>, StorageError> {
    let size_bytes = match store.head(&blob.key).await {
        Ok(info) => info.size_bytes,
        Err(error) if error.kind == StorageErrorKind::NotFound => {
            let listed = store.list(blob.key.as_str(), None, 1).await?;
            let is_there = listed.objects.iter().any(|object| object.key == blob.key);
            return Ok((!is_there).then_some(StateReason::ObjectMissing));
        }
        Err(error) => return Err(error),
    };
    if size_bytes != blob.size_bytes {
        return Ok(Some(StateReason::ObjectDamaged));
    }
    match suspicion {
        Suspicion::Length => Ok(None),
        Suspicion::Checksum => {
            Ok((is_whole(store, blob).await? == Some(false)).then_some(StateReason::ObjectDamaged))
        }
    }
}

/// Reads an object and compares it with its record; nothing when the read ended early, which says nothing.
///
/// # Errors
/// When the store does not answer.
pub(in crate::app) async fn is_whole(
    store: &dyn ObjectStorage,
    blob: &Blob,
) -> Result<Option<bool>, StorageError> {
    let (mut sha256, mut crc64nvme, mut read_bytes) = (Hasher::default(), Crc64Hasher::default(), 0);
    let mut bytes = store.get(&blob.key, 0..blob.size_bytes).await?;
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        sha256.update(&piece);
        crc64nvme.update(&piece);
        read_bytes += piece.len() as u64;
    }
    if read_bytes != blob.size_bytes {
        return Ok(None);
    }
    Ok(Some(sha256.finish() == blob.sha256 && crc64nvme.finish() == blob.crc64nvme))
}

/// Writes down what is wrong with an object; answers how many versions that concerns.
pub(in crate::app) async fn mark(
    db: &Database,
    tenant: TenantId,
    blob: &Blob,
    reason: StateReason,
) -> Result<usize, DbError> {
    let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
    let marked = content_states::mark_damaged(&mut tx, blob, reason).await;
    tx.finish(marked).await
}

/// An object that is being read, and whose it is.
#[derive(Clone)]
pub(in crate::app) struct Suspect {
    pub(in crate::app) app: Arc<App>,
    pub(in crate::app) tenant: TenantId,
    pub(in crate::app) store: Arc<dyn ObjectStorage>,
    pub(in crate::app) blob: Blob,
}

impl Suspect {
    /// Looks again, and writes down what is certain. The reader has its answer whatever comes of it: what fails here is
    /// found by the next reader, or by `fsck`.
    pub(in crate::app) fn look_again(&self, suspicion: Suspicion) {
        let Self { app, tenant, store, blob } = self.clone();
        let tasks = app.tasks.clone();
        let looking = async move {
            let key = &blob.key;
            let reason = match confirm(store.as_ref(), &blob, suspicion).await {
                Ok(Some(reason)) => reason,
                Ok(None) => {
                    return tracing::warn!(%tenant, %key, ?suspicion, "an object that could not be read is whole");
                }
                Err(error) => {
                    return tracing::warn!(%tenant, %key, %error, "look at a suspicious object again");
                }
            };
            match mark(&app.db, tenant, &blob, reason).await {
                Ok(versions) => tracing::error!(%tenant, %key, %reason, versions, "stored bytes are lost"),
                Err(error) => tracing::warn!(%tenant, %key, %error, "mark a damaged object"),
            }
        };
        tasks.spawn(tracing::Instrument::instrument(looking, tracing::Span::current()));
    }
}
