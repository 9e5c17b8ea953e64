//! Makes an object of the lost hours a file again. Its row is written by the same commit as that of an upload: blob,
//! file, version, audit entry, event and quota in one transaction. So a crash leaves nothing half done, an object that
//! a blob references is never readopted again, and no quota is exceeded.
//!
//! Each blob gets the id that it had, so that another object of the same blob (its original, a copy that was moved, or
//! the copy at the replica provider) is found to be a copy, and does not become a second file.
//!
//! All files come back in one category that only the admins of the tenant see. The admins transfer or delete them.

use serde_json::{Map, Value};

use super::{
    label::open_label,
    outcome::ReadoptOutcome,
    stored_copy::{FoundObject, apply_requested_class, resolve_stored_copy},
};
use crate::{
    app::{
        App, Error, idempotency,
        integrity::read_object::{ReadObject, read_object},
        quotas::charge::commit_error,
    },
    db::{
        TenantTx, Viewer, WrittenRow,
        audit_entries::{self, AuditAction, AuditEntry},
        blobs::{self, Blob, TenantBlob},
        commit::{self, UploadCommitOutcome},
        files,
        finished_upload::{FinishedDestination, FinishedUpload},
        tenants,
    },
    domain::{
        error_text::with_causes,
        file::{ContentState, ScanStatus, VersionContent, Visibility},
        ids::{BlobId, FileId, TenantId},
        media_type::{MediaKind, resolve_type},
        object_hasher::HashedObject,
        object_label::{CopyLabel, ObjectLabel, PrivateLabel, is_fragment},
        policy::categories::{CategoryChange, CategoryError},
        principal::SYSTEM_ID,
        storage_class::StorageClass,
        upload_destination::NewFile,
    },
    storage::{ObjectInfo, ObjectStorage},
};

/// The category of readopted files.
const RECOVERED_CATEGORY: &str = "recovered";

/// Makes an object a file again.
///
/// # Errors
/// Returns an error if the database or the store is unavailable, or if the store belongs to another database.
pub(super) async fn readopt_object(
    app: &App,
    store: &dyn ObjectStorage,
    object: &ObjectInfo,
) -> Result<ReadoptOutcome, Error> {
    leave_unreadable(try_readopt(app, store, object).await)
}

async fn try_readopt(
    app: &App,
    store: &dyn ObjectStorage,
    object: &ObjectInfo,
) -> Result<ReadoptOutcome, Error> {
    let tenant = object.key.tenant();
    let metadata = store.read_metadata(&object.key).await?;
    if is_fragment(&metadata) {
        return Ok(ReadoptOutcome::Leftover);
    }
    let (label, copy) = (open_label(app, tenant, &metadata), CopyLabel::from_metadata(&metadata));
    if label.is_none() && copy.is_none() && is_writable_by_url(app, store, object) {
        let seconds = app.limits.uploads.direct_url_seconds;
        return Ok(ReadoptOutcome::Left(format!(
            "object has no label, and may belong to a direct upload whose URL is still valid; repeat the command in {seconds} s"
        )));
    }
    let content = read_whole_object(store, object).await?;
    let sha256 = content.checksums.hashes.sha256;
    let declared = label.as_ref().and_then(|label| label.sha256);
    if let Some(declared) = declared.filter(|declared| *declared != sha256) {
        return Ok(ReadoptOutcome::Left(format!("SHA-256 is {sha256}; the upload declared {declared}")));
    }
    let found = FoundObject { info: object, label: label.as_ref(), copy, sha256, is_stray: false };
    if let Some(outcome) = resolve_stored_copy(app, store, &found).await? {
        return Ok(outcome);
    }
    ensure_category(app, tenant).await?;
    let id = choose_blob_id(app, tenant, found.blob()).await?;
    let class = found.class(store, StorageClass::Standard);
    let blob = Blob {
        id,
        provider: store.provider().to_owned(),
        key: object.key.clone(),
        size_bytes: object.size_bytes,
        hashes: Some(content.checksums.hashes),
        class: StorageClass::Standard,
    };
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let committed = Box::pin(commit_file(app, &mut tx, &blob, object, label, content)).await;
    let file = tx.finish(committed).await?;
    if class != blob.class {
        record_class(app, TenantBlob { tenant, blob }, class, file).await?;
    }
    Ok(ReadoptOutcome::Readopted)
}

/// Points a stored version to a stray object that is the only one with its bytes: the copy of a move that was in
/// progress in the restored state, and ended since. An object that no version needs is a leftover, and one that cannot
/// be read is left: it may have the only bytes of a version.
///
/// # Errors
/// Returns an error if the database or the store is unavailable, or if the store belongs to another database.
pub(super) async fn relink_stray(
    app: &App,
    store: &dyn ObjectStorage,
    object: &ObjectInfo,
) -> Result<ReadoptOutcome, Error> {
    leave_unreadable(try_relink_stray(app, store, object).await)
}

async fn try_relink_stray(
    app: &App,
    store: &dyn ObjectStorage,
    object: &ObjectInfo,
) -> Result<ReadoptOutcome, Error> {
    let metadata = store.read_metadata(&object.key).await?;
    let label = open_label(app, object.key.tenant(), &metadata);
    let copy = CopyLabel::from_metadata(&metadata);
    let content = read_whole_object(store, object).await?;
    let sha256 = content.checksums.hashes.sha256;
    let found = FoundObject { info: object, label: label.as_ref(), copy, sha256, is_stray: true };
    Ok(resolve_stored_copy(app, store, &found).await?.unwrap_or(ReadoptOutcome::Leftover))
}

/// Leaves an object whose attempt failed, unless all attempts would fail for the same reason.
fn leave_unreadable(attempt: Result<ReadoptOutcome, Error>) -> Result<ReadoptOutcome, Error> {
    match attempt {
        Err(error) if error.is_dependency_failure() || matches!(error, Error::StoreNotOwned(_)) => Err(error),
        Err(error) => Ok(ReadoptOutcome::Left(with_causes(&error))),
        outcome => outcome,
    }
}

/// Reads all bytes of an object. A store that ends the stream early would hide that a version needs the object.
async fn read_whole_object(store: &dyn ObjectStorage, object: &ObjectInfo) -> Result<ReadObject, Error> {
    let content = read_object(store, &object.key, object.size_bytes).await?;
    match content.checksums.size_bytes == object.size_bytes {
        true => Ok(content),
        false => Err(Error::ObjectDamaged),
    }
}

/// Returns the id that the blob of an object had, unless a blob has it.
async fn choose_blob_id(app: &App, tenant: TenantId, former: BlobId) -> Result<BlobId, Error> {
    let mut tx = app.db.system_tx().await?;
    let is_used = blobs::exists(&mut tx, tenant, former).await?;
    tx.commit().await?;
    Ok(if is_used { BlobId::from_uuid(app.ids.uuid()) } else { former })
}

/// Returns whether an object may be the staging object of a direct upload whose URL has not expired. A URL is older
/// than the object that was written with it.
fn is_writable_by_url(app: &App, store: &dyn ObjectStorage, object: &ObjectInfo) -> bool {
    let age = (app.clock.now() - object.modify_time).to_std().unwrap_or_default();
    store.capabilities().presigned_urls && age < app.limits.uploads.direct_url_lifetime()
}

/// Adds the category to the policy of a tenant, if it is missing.
async fn ensure_category(app: &App, tenant: TenantId) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let ensured = add_category(&mut tx).await;
    tx.finish(ensured).await
}

async fn add_category(tx: &mut TenantTx) -> Result<(), Error> {
    let is_present =
        |stored: &tenants::StoredPolicy| stored.policy.categories.contains_key(RECOVERED_CATEGORY);
    if is_present(&tenants::get_policy(tx).await?) {
        return Ok(());
    }
    let stored = tenants::get_policy_for_update(tx).await?;
    if is_present(&stored) {
        return Ok(());
    }
    let change = CategoryChange { visibility: Some(Visibility::Owner), ..CategoryChange::default() };
    let changed = match stored.policy.with_category(RECOVERED_CATEGORY, &change) {
        Ok(changed) => changed,
        Err(CategoryError::Invalid(violations)) => return Err(violations.into()),
        Err(error) => return Err(Error::internal(format!("cannot add the category: {error:?}"))),
    };
    let details = serde_json::json!({ "category": RECOVERED_CATEGORY, "change": change });
    audit_entries::insert(tx, &[AuditEntry::system(AuditAction::PolicyUpdate, details)]).await?;
    tenants::set_policy(tx, changed).await?;
    Ok(())
}

/// Records the class of the object of a new blob. A commit records the standard class. If the blob has been moved or
/// purged in the meantime, nothing is left to record.
async fn record_class(app: &App, new: TenantBlob, class: StorageClass, file: FileId) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    blobs::relocate(&mut tx, &new, &new.blob.provider, &new.blob.key, class).await?;
    tx.commit().await?;
    apply_requested_class(app, new.tenant, file).await
}

/// Writes the rows of a file. Returns its id.
async fn commit_file(
    app: &App,
    tx: &mut TenantTx,
    blob: &Blob,
    object: &ObjectInfo,
    label: Option<ObjectLabel>,
    content: ReadObject,
) -> Result<FileId, Error> {
    let ReadObject { checksums: HashedObject { hashes, block_checksums, .. }, sniffed } = content;
    let private = label.as_ref().map(|label| label.private.clone()).unwrap_or_default();
    let record = describe_file(object, label.as_ref(), &private);
    let mime_type = resolve_type(&private.declared_mime_type, sniffed.as_deref(), &record.name).mime_type;
    let content = VersionContent {
        content_state: ContentState::Available,
        scan_status: ScanStatus::NotScanned,
        media_kind: MediaKind::from_mime_type(&mime_type),
        mime_type,
        declared_mime_type: private.declared_mime_type,
        size_bytes: object.size_bytes,
        sha256: Some(hashes.sha256),
    };
    let audit = AuditEntry::system(
        AuditAction::FileUpload,
        serde_json::json!({ "readopted_key": object.key.as_str(), "provider": blob.provider }),
    );
    let uploader = Viewer::system();
    let id = choose_file_id(app, tx, label.as_ref()).await?;
    let destination =
        FinishedDestination::NewFile { id, owner_id: SYSTEM_ID.to_owned(), record: Box::new(record) };
    let finished = FinishedUpload {
        destination: &destination,
        content: &content,
        created_by: SYSTEM_ID,
        uploader: &uploader,
        change_description: "",
        blob,
        block_checksums: block_checksums.as_ref(),
        audit: &audit,
        lease: None,
        request: None,
        response: (),
    };
    let outcome = commit::commit_uploads(tx, &[finished], idempotency::retention_hours(app)).await?;
    let outcomes = match outcome.outcomes {
        Ok((outcomes, _)) => outcomes,
        Err(exceeded) => {
            let needed = i64::try_from(object.size_bytes).unwrap_or(i64::MAX);
            return Err(commit_error(tx, exceeded, needed).await?);
        }
    };
    match outcomes.as_slice() {
        [UploadCommitOutcome::Committed(..)] => {
            tx.note_written(outcome.transaction, Some(WrittenRow::Blob(blob.id)));
            Ok(id)
        }
        other => Err(Error::internal(format!("unexpected outcome of a commit: {other:?}"))),
    }
}

/// Returns the id that the file had, unless it was a later version or the file exists.
async fn choose_file_id(app: &App, tx: &mut TenantTx, label: Option<&ObjectLabel>) -> Result<FileId, Error> {
    let former = label.filter(|label| label.is_first_version).map(|label| label.file);
    if let Some(former) = former
        && files::get(tx, former).await?.is_none()
    {
        return Ok(former);
    }
    Ok(FileId::from_uuid(app.ids.uuid()))
}

/// Returns the record of the file. Only admins see it: it has no owner among the users, and its former owner is in its
/// metadata.
fn describe_file(object: &ObjectInfo, label: Option<&ObjectLabel>, private: &PrivateLabel) -> NewFile {
    let mut metadata = Map::new();
    let mut note = |name: &str, value: String| {
        if !value.is_empty() {
            metadata.insert(format!("recovered_{name}"), Value::String(value));
        }
    };
    note("object_time", object.modify_time.to_rfc3339());
    if let Some(label) = label {
        note("file_id", label.file.to_string());
        note("is_first_version", label.is_first_version.to_string());
        note("category", label.category.clone());
        note("create_time", label.create_time.to_rfc3339());
        note("owner_id", private.owner_id.clone());
    }
    let name = match private.name.as_str() {
        "" => format!("recovered-{}", object.key.blob()),
        name => name.to_owned(),
    };
    NewFile {
        name,
        category: RECOVERED_CATEGORY.to_owned(),
        title: String::new(),
        description: String::new(),
        tags: Vec::new(),
        metadata,
        attachments: Vec::new(),
        visibility: Visibility::Owner,
        readers: Vec::new(),
        expire_time: None,
        retain_until_time: None,
        retention_days: None,
        requested_category: RECOVERED_CATEGORY.to_owned(),
        requested_visibility: None,
        import_origin: None,
    }
}
