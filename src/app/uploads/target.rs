//! Where the bytes of a new blob go: a store, a key that is made by us alone, and what goes along with the object.

use std::sync::Arc;

use crate::{
    app::{App, Error},
    db::blobs::Blob,
    domain::{
        caller::Caller, checksum::Crc64, digest::Digest, ids::BlobId, object_key::ObjectKey,
        upload_spec::CheckedSpec,
    },
    storage::{ObjectStorage, PutOptions, StorageError, StorageErrorKind},
};

/// Where the bytes of a new blob go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The store that they go to from first to last.
    pub(super) store: Arc<dyn ObjectStorage>,
    /// The blob.
    pub(super) blob_id: BlobId,
    /// Its key, made by us alone.
    pub(super) key: ObjectKey,
    /// What goes along with the object; never the file's name.
    pub(super) options: PutOptions,
    /// Whether they are a further version of a file.
    pub(super) is_version: bool,
}

/// A new blob's place: a fresh key in every attempt.
pub(super) fn target(app: &App, caller: &Caller, spec: &CheckedSpec) -> Result<Target, Error> {
    let blob_id = BlobId::from_uuid(app.ids.uuid());
    let day = app.clock.now().date_naive();
    let key = ObjectKey::for_blob(&app.limits.key_prefix, caller.tenant_id(), &spec.category, day, blob_id)
        .map_err(Error::internal)?;
    let options = PutOptions::of_blob(caller.tenant_id(), Some(&caller.actor.id));
    let store = Arc::clone(app.stores.writing());
    Ok(Target { store, blob_id, key, options, is_version: spec.file.is_some() })
}

impl Target {
    /// The blob that the bytes became.
    pub(super) fn blob(&self, size_bytes: u64, sha256: Digest, crc64nvme: Crc64) -> Blob {
        Blob {
            id: self.blob_id,
            provider: self.store.provider().to_owned(),
            key: self.key.clone(),
            size_bytes,
            sha256,
            crc64nvme,
            class: self.options.class,
        }
    }
}

/// Removes an object that no committed row refers to.
pub(super) async fn remove_object(target: &Target) {
    let key = &target.key;
    if let Err(error) = target.store.delete(key).await {
        tracing::warn!(%key, %error, "delete object");
    }
}

/// Why parts cannot be written or put together. An unfinished object that is gone was given up by someone else, when the
/// lease had run out; nothing that was stored is lost.
pub(super) fn of_parts(error: StorageError) -> Error {
    match error.kind {
        StorageErrorKind::NotFound => Error::UploadFenced,
        _ => error.into(),
    }
}
