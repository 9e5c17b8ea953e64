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
        Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
        blob_replicas,
        blobs::{self, TenantBlob},
        content_states,
        stray_objects::{self, StrayObject},
        unknown_objects,
    },
    domain::{
        digest::Digest,
        ids::{BlobId, TenantId},
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
/// exists, the object is a leftover. Otherwise the blob gets the object, so that the version is complete again.
///
/// # Errors
/// Returns an error if the database or a store is unavailable.
pub(super) async fn resolve_stored_copy(
    app: &App,
    store: &dyn ObjectStorage,
    found: &FoundObject<'_>,
) -> Result<Option<ReadoptOutcome>, Error> {
    let Some(owned) = find_stored(app, found).await? else { return Ok(None) };
    let original = app.stores.get(&owned.blob.provider)?.find_object(&owned.blob.key).await?;
    Ok(Some(match original {
        Some(original) if original.size_bytes == found.info.size_bytes => ReadoptOutcome::Leftover,
        _ => relink_blob(app, store, found, &owned).await?,
    }))
}

/// Returns the blob that an object is a copy of.
async fn find_stored(app: &App, found: &FoundObject<'_>) -> Result<Option<TenantBlob>, Error> {
    let (tenant, sha256) = (found.tenant(), found.sha256);
    let mut tx = app.db.system_tx().await?;
    let mut stored = unknown_objects::find_blob(&mut tx, tenant, found.blob(), sha256).await?;
    // A lost file with the bytes of another file is a file of its own.
    if stored.is_none() {
        stored = match (found.label, found.copy) {
            (Some(label), _) => {
                unknown_objects::find_blob_of_file(&mut tx, tenant, label.file, sha256).await?
            }
            (None, None) => unknown_objects::find_blob_by_digest(&mut tx, tenant, sha256).await?,
            (None, Some(_)) => None,
        };
    }
    tx.commit().await?;
    Ok(stored)
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
        // The file may request the class that the blob had.
        let mut tx = app.db.tenant_tx(*tenant, &Viewer::system()).await?;
        let enqueued = enqueue_job(app, &mut tx, version.file).await;
        tx.finish(enqueued).await?;
    }
    Ok(ReadoptOutcome::Readopted)
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
