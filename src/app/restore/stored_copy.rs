//! An object of the lost hours may be a copy of a stored version: its blob was moved to another provider or storage
//! class in these hours. The restored database still references the original.

use super::outcome::ReadoptOutcome;
use crate::{
    app::{App, Error},
    db::{
        audit_entries::{self, AuditAction, AuditEntry},
        blobs::{self, TenantBlob},
        unknown_objects,
    },
    domain::{digest::Digest, ids::FileId},
    storage::{ObjectInfo, ObjectStorage, ObjectStorageExt as _},
};

/// Returns the result for an object whose label names a file that has a version with the same bytes, or `None` if it
/// has none. If the original still exists, the object is a leftover. Otherwise the blob gets the object, so that the
/// version is complete again.
///
/// # Errors
/// Returns an error if the database or a store is unavailable.
pub(super) async fn resolve_stored_copy(
    app: &App,
    store: &dyn ObjectStorage,
    object: &ObjectInfo,
    file: FileId,
    sha256: Digest,
) -> Result<Option<ReadoptOutcome>, Error> {
    let mut tx = app.db.system_tx().await?;
    let found = unknown_objects::find_blob_of_file(&mut tx, object.key.tenant(), file, sha256).await?;
    tx.commit().await?;
    let Some(owned) = found else { return Ok(None) };
    let original = app.stores.get(&owned.blob.provider)?.find_object(&owned.blob.key).await?;
    Ok(Some(match original {
        Some(original) if original.size_bytes == object.size_bytes => ReadoptOutcome::Leftover,
        _ => relink_blob(app, store.provider(), object, &owned).await?,
    }))
}

/// Points a blob whose object is missing to the copy.
async fn relink_blob(
    app: &App,
    provider: &str,
    object: &ObjectInfo,
    owned: &TenantBlob,
) -> Result<ReadoptOutcome, Error> {
    let blob = &owned.blob;
    let mut tx = app.db.system_tx().await?;
    if !blobs::relocate(&mut tx, owned, provider, &object.key, blob.class).await? {
        let reason = "the version with these bytes changed in the meantime; repeat the command";
        return Ok(ReadoptOutcome::Left(reason.to_owned()));
    }
    let details = serde_json::json!({
        "blob": blob.id, "from": blob.provider, "to": provider, "readopted_key": object.key.as_str(),
    });
    let entry = AuditEntry::system(AuditAction::StorageMove, details);
    audit_entries::insert_for(&mut tx, owned.tenant, &[entry]).await?;
    tx.commit().await?;
    Ok(ReadoptOutcome::Readopted)
}
