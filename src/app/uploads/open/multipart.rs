//! The multipart upload of an open upload, and what to do when the store does not have it any more.
//!
//! There are three causes. Another process took over the upload, or abandoned it after its lease expired. An earlier
//! attempt completed it, and its commit failed. Or the store aborted it by itself: the lifecycle rule that `storage
//! init` creates does so at some age, however recent the last part is. Only in the last case is the lease still held
//! and there is no object. A resumable upload then begins again, with a new multipart upload under a new key; any
//! other upload ends.

use std::sync::Arc;

use tracing::Instrument as _;

use super::super::{admit::Target, commit::delete_object, error::map_multipart_error};
use crate::{
    app::{
        App, Error,
        owner::delete::{Deletion, delete_from_store},
        restore::label::relabel,
        uploads::UploadError,
    },
    db::{
        DbError, TenantTx, Viewer, resumable_uploads, upload_parts,
        uploads::{self, UploadLease},
    },
    domain::ids::{BlobId, TenantId},
    storage::{MultipartId, ObjectStorageExt, PartLayout, PutOptions, StorageError, StorageErrorKind},
};

/// A multipart upload in the store, with the lease of its upload. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::app::uploads) struct OpenMultipart {
    pub(in crate::app::uploads) tenant: TenantId,
    pub(in crate::app::uploads) lease: UploadLease,
    pub(in crate::app::uploads) target: Target,
    pub(in crate::app::uploads) id: MultipartId,
    pub(in crate::app::uploads) layout: PartLayout,
    /// Whether the upload can begin again.
    pub(in crate::app::uploads) is_resumable: bool,
}

impl OpenMultipart {
    /// Converts an error of a request to this multipart upload.
    pub(in crate::app::uploads) async fn convert_error(&self, app: &Arc<App>, error: StorageError) -> Error {
        match error.kind {
            StorageErrorKind::NotFound => match Box::pin(self.resolve_missing(app)).await {
                Ok(error) | Err(error) => error,
            },
            _ => map_multipart_error(error),
        }
    }

    /// Returns the error for a write that was not recorded: the lease was lost, or another writer of this process
    /// began the upload again.
    pub(in crate::app::uploads) async fn resolve_unrecorded(&self, app: &App) -> Result<Error, Error> {
        Ok(match self.current_id(app).await? {
            Some(id) if id != self.id => UploadError::Paused { persisted_size_bytes: 0 }.into(),
            _ => UploadError::Fenced.into(),
        })
    }

    /// Returns the error for a multipart upload that the store does not have.
    async fn resolve_missing(&self, app: &Arc<App>) -> Result<Error, Error> {
        match self.current_id(app).await? {
            None => return Ok(UploadError::Fenced.into()),
            Some(_) if !self.is_resumable => return Ok(UploadError::PartsLost.into()),
            Some(id) if id != self.id => return Ok(UploadError::Paused { persisted_size_bytes: 0 }.into()),
            Some(_) => {}
        }
        match self.target.store.find_object(&self.target.key).await.map_err(map_multipart_error)? {
            Some(whole) => Ok(UploadError::HasAllBytes { size_bytes: whole.size_bytes }.into()),
            None => self.begin_again(app).await,
        }
    }

    /// Starts a new multipart upload under a new key, because a completion of the former one may still take effect.
    /// Returns the error that asks the client to send all bytes again.
    ///
    /// Runs in a separate task, so that a client that disconnects leaves no multipart upload without a row.
    pub(in crate::app::uploads) async fn begin_again(&self, app: &Arc<App>) -> Result<Error, Error> {
        let (owned, former) = (Arc::clone(app), self.clone());
        let replacing = async move { former.replace(&owned).await };
        app.tasks.spawn(replacing.in_current_span()).await.map_err(Error::internal)?
    }

    async fn replace(self, app: &App) -> Result<Error, Error> {
        let blob_id = BlobId::from_uuid(app.ids.uuid());
        let Target { store, key, options, .. } = &self.target;
        let new_key = key.with_new_blob(app.clock.now().date_naive(), blob_id).map_err(Error::internal)?;
        let metadata = relabel(app, self.tenant, options.metadata.clone(), blob_id)?;
        let options = PutOptions { metadata, ..options.clone() };
        let started = store.start_multipart(&new_key, self.layout.part_size_bytes(), &options).await;
        let new_id = started.map_err(|error| match error.kind {
            // The store itself is missing, such as a directory that is not mounted.
            StorageErrorKind::NotFound => Error::StorageUnavailable(error),
            _ => map_multipart_error(error),
        })?;
        let fresh = Self {
            target: Target { blob_id, key: new_key, options, ..self.target.clone() },
            id: new_id,
            ..self.clone()
        };
        let mut tx = app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
        let replaced = replace_in_tx(&mut tx, &self, &fresh).await;
        match tx.finish(replaced).await {
            Ok(true) => {
                tracing::warn!(
                    upload = %self.lease.id,
                    "the store lost the parts of an upload, which begins again; see `abandoned_multipart_days`"
                );
                self.discard().await;
                Ok(UploadError::Paused { persisted_size_bytes: 0 }.into())
            }
            Ok(false) => {
                fresh.discard().await;
                self.resolve_unrecorded(app).await
            }
            Err(error) => {
                // If the transaction was committed nevertheless, the next request begins the upload again.
                fresh.discard().await;
                Err(error.into())
            }
        }
    }

    /// Deletes what no row refers to. What cannot be deleted is swept.
    async fn discard(&self) {
        let Target { store, key, .. } = &self.target;
        let deletion = Deletion::Multipart(key, &self.id);
        if let Err(error) = delete_from_store(store.as_ref(), deletion).await {
            tracing::warn!(%key, %error, "failed to abort multipart upload");
        }
        delete_object(&self.target).await;
    }

    /// Returns the multipart upload that the row of the upload names, or `None` if the lease was lost.
    async fn current_id(&self, app: &App) -> Result<Option<MultipartId>, Error> {
        let mut tx = app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
        let current = uploads::get_held_multipart_id(&mut tx, self.lease).await;
        Ok(tx.finish(current).await?.map(MultipartId::new))
    }
}

/// Replaces the multipart upload and deletes its parts. Returns false, without a change, if the lease was lost or
/// another writer was first.
async fn replace_in_tx(
    tx: &mut TenantTx,
    former: &OpenMultipart,
    fresh: &OpenMultipart,
) -> Result<bool, DbError> {
    let Target { blob_id, key, .. } = &fresh.target;
    let (former_id, fresh_id) = (former.id.as_str(), fresh.id.as_str());
    // The upload is locked before its parts, as when a part is recorded.
    if !resumable_uploads::replace_multipart(tx, former.lease, former_id, *blob_id, key, fresh_id).await? {
        return Ok(false);
    }
    uploads::restart_renewals(tx, former.lease).await?;
    upload_parts::delete_from(tx, former.lease, 1).await?;
    Ok(true)
}
