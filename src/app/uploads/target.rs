//! The location of a new blob: a store, a server-generated key, and the options of the object.

use std::sync::Arc;

use crate::{
    app::{App, Error, uploads::UploadError},
    db::blobs::Blob,
    domain::{
        caller::Caller, digest::ObjectHashes, ids::BlobId, object_key::ObjectKey,
        upload_destination::DestinationKind, upload_spec::ResolvedSpec,
    },
    storage::{ObjectStorage, PutOptions, StorageError, StorageErrorKind},
};

/// The location of a new blob.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The store that receives all bytes of the blob.
    pub(super) store: Arc<dyn ObjectStorage>,
    pub(super) blob_id: BlobId,
    /// The server-generated key. It contains no part of the file's name.
    pub(super) key: ObjectKey,
    /// The options of the object. They never contain the file's name.
    pub(super) options: PutOptions,
    /// Whether the blob becomes a new file or a new version.
    pub(super) destination: DestinationKind,
}

/// Chooses the location of a new blob. Each call returns a new key, so no object is ever overwritten.
pub(super) fn new_target(app: &App, caller: &Caller, spec: &ResolvedSpec) -> Result<Target, Error> {
    let blob_id = BlobId::from_uuid(app.ids.uuid());
    let day = app.clock.now().date_naive();
    let key =
        ObjectKey::for_blob(&app.limits.key_prefix, caller.tenant_id(), &spec.rules.category, day, blob_id)
            .map_err(Error::internal)?;
    let options = PutOptions::for_blob(caller.tenant_id(), Some(&caller.actor.id));
    let store = Arc::clone(app.stores.primary());
    Ok(Target { store, blob_id, key, options, destination: spec.checked.destination.kind() })
}

impl Target {
    /// Returns the blob row for the stored bytes.
    pub(super) fn to_blob(&self, size_bytes: u64, hashes: Option<ObjectHashes>) -> Blob {
        Blob {
            id: self.blob_id,
            provider: self.store.provider().to_owned(),
            key: self.key.clone(),
            size_bytes,
            hashes,
            class: self.options.class,
        }
    }
}

/// Deletes an object that no committed row refers to. A failure is logged: the sweeper deletes the object
/// later.
pub(super) async fn delete_object(target: &Target) {
    let key = &target.key;
    if let Err(error) = target.store.delete(key).await {
        tracing::warn!(%key, %error, "failed to delete object");
    }
}

/// Maps an error of a multipart operation. If the multipart upload does not exist, another process abandoned
/// it after the lease expired.
pub(super) fn map_multipart_error(error: StorageError) -> Error {
    match error.kind {
        StorageErrorKind::NotFound => UploadError::Fenced.into(),
        _ => error.into(),
    }
}
