//! An object of the lost hours may be a copy of a stored version: its blob was moved to another provider or storage
//! class in these hours, or was copied to the replica provider. The restored database still references the original, or
//! the original is a file again by now.
//!
//! Copies are found by the id of their blob. A version that did not record it moved objects without it: their labels
//! name the file. Objects from before labels existed, and their copies, have neither, and are compared by their digest.

use super::outcome::ReadoptOutcome;
use crate::{
    app::{
        App, Error,
        storage::{apply_storage_class::enqueue_job, relocation::READERS_HOURS},
    },
    db::{
        SystemTx, Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
        blob_replicas,
        blobs::{self, TenantBlob},
        content_states,
        stray_objects::{self, StrayObject},
        unknown_objects,
    },
    domain::{
        digest::Digest,
        ids::{BlobId, FileId, TenantId},
        object_label::{CopyLabel, ObjectLabel},
        storage_class::StorageClass,
    },
    storage::{ObjectInfo, ObjectStorage, ObjectStorageExt as _},
};

/// An object that was read, and what its metadata says about it.
pub(super) struct FoundObject<'a> {
    pub(super) info: &'a ObjectInfo,
    pub(super) label: Option<&'a ObjectLabel>,
    pub(super) copy: Option<CopyLabel>,
    pub(super) sha256: Digest,
    /// Whether the database knows it as a stray object.
    pub(super) is_stray: bool,
}

impl FoundObject<'_> {
    fn tenant(&self) -> TenantId {
        self.info.key.tenant()
    }

    /// Returns the id that the blob of this object had. The key of an original contains it.
    pub(super) fn blob(&self) -> BlobId {
        self.copy.map_or(self.info.key.blob(), |copy| copy.blob)
    }

    /// Returns the storage class of this object, which is that of its original unless it says otherwise.
    pub(super) fn class(&self, store: &dyn ObjectStorage, original: StorageClass) -> StorageClass {
        match store.capabilities().storage_classes {
            true => self.copy.and_then(|copy| copy.class).unwrap_or(original),
            false => StorageClass::Standard,
        }
    }
}

/// Returns the result for an object that is a copy of a stored version, or `None` if it is none. If the original still
/// exists, the object is a leftover. Otherwise the blob gets the object, so that the version is complete again. An
/// object that belongs to the blob and has other bytes is left: it may have been read wrongly.
///
/// # Errors
/// Returns an error if the database or a store is unavailable.
pub(super) async fn resolve_stored_copy(
    app: &App,
    store: &dyn ObjectStorage,
    found: &FoundObject<'_>,
) -> Result<Option<ReadoptOutcome>, Error> {
    let mut tx = app.db.system_tx().await?;
    let same_id = unknown_objects::find_blob(&mut tx, found.tenant(), found.blob()).await?;
    let recorded = same_id.as_ref().and_then(|owned| owned.blob.hashes).map(|hashes| hashes.sha256);
    let stored = match recorded == Some(found.sha256) {
        true => same_id.clone(),
        false => find_same_bytes(&mut tx, found).await?,
    };
    tx.commit().await?;
    if let Some(owned) = stored {
        return Ok(Some(match is_stored(app, &owned).await? {
            true => ReadoptOutcome::Leftover,
            false => relink_blob(app, store, found, &owned).await?,
        }));
    }
    match same_id {
        Some(owned) if !is_stored(app, &owned).await? => {
            let recorded = recorded.map_or_else(|| "unknown".to_owned(), |sha256| sha256.to_string());
            let reason = format!(
                "SHA-256 is {}; that of its blob, whose object is missing, is {recorded}",
                found.sha256
            );
            Ok(Some(ReadoptOutcome::Left(reason)))
        }
        _ => Ok(None),
    }
}

/// Returns whether the object of a blob exists and has the recorded size.
async fn is_stored(app: &App, owned: &TenantBlob) -> Result<bool, Error> {
    let object = app.stores.get(&owned.blob.provider)?.find_object(&owned.blob.key).await?;
    Ok(object.is_some_and(|object| object.size_bytes == owned.blob.size_bytes))
}

/// Returns the blob that an object without the id of its blob is a copy of. A lost file with the bytes of another file
/// is a file of its own.
async fn find_same_bytes(tx: &mut SystemTx, found: &FoundObject<'_>) -> Result<Option<TenantBlob>, Error> {
    let (tenant, sha256) = (found.tenant(), found.sha256);
    Ok(match (found.label, found.copy) {
        (Some(label), _) => unknown_objects::find_blob_of_file(tx, tenant, label.file, sha256).await?,
        (None, None) => unknown_objects::find_blob_by_digest(tx, tenant, sha256).await?,
        (None, Some(_)) => None,
    })
}

/// Points a blob whose object is missing to the copy.
async fn relink_blob(
    app: &App,
    store: &dyn ObjectStorage,
    found: &FoundObject<'_>,
    owned: &TenantBlob,
) -> Result<ReadoptOutcome, Error> {
    let TenantBlob { tenant, blob } = owned;
    let (provider, key) = (store.provider(), &found.info.key);
    let class = found.class(store, blob.class);
    let changed = || {
        let reason = "the version with these bytes changed in the meantime; repeat the command";
        Ok(ReadoptOutcome::Left(reason.to_owned()))
    };
    let mut tx = app.db.system_tx().await?;
    // Before the blob, because this locks the files. `fsck --repair` may have marked them.
    content_states::mark_repaired(&mut tx, *tenant, blob.id).await?;
    if !blobs::relocate(&mut tx, owned, provider, key, class).await? {
        return changed();
    }
    let details = serde_json::json!({
        "blob": blob.id, "from": blob.provider, "to": provider, "storage_class": class,
        "readopted_key": key.as_str(),
    });
    let entry = AuditEntry::system(AuditAction::StorageMove, details);
    audit_entries::insert_for(&mut tx, *tenant, &[entry]).await?;
    // A copy must not be with the provider of its original. The blob gets another one.
    if let Some(replica) = blob_replicas::find_at(&mut tx, *tenant, blob.id, provider).await? {
        blob_replicas::remove(&mut tx, *tenant, blob.id, &replica, READERS_HOURS).await?;
    }
    if found.is_stray && !stray_objects::adopt(&mut tx, &stray_object(provider, found)).await? {
        return changed();
    }
    let affected = unknown_objects::list_versions(&mut tx, *tenant, blob.id, 1).await?;
    tx.commit().await?;
    if class != blob.class
        && let Some(version) = affected.first()
    {
        apply_requested_class(app, *tenant, version.file).await?;
    }
    Ok(ReadoptOutcome::Readopted)
}

/// Lets the blobs of a file move to the class that the file requests.
pub(super) async fn apply_requested_class(app: &App, tenant: TenantId, file: FileId) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let enqueued = enqueue_job(app, &mut tx, file).await;
    Ok(tx.finish(enqueued).await?)
}

fn stray_object(provider: &str, found: &FoundObject<'_>) -> StrayObject {
    StrayObject {
        tenant: found.tenant(),
        provider: provider.to_owned(),
        key: found.info.key.clone(),
        may_be_unfinished: false,
        size_bytes: 0,
    }
}
