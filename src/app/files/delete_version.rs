//! Deletes one version of a file permanently.

use super::{
    FileChange, MutationResponse, MutationStart, begin_mutation_with_payload, finish_mutation,
    load_file_details, purge,
};
use crate::{
    app::{App, Error, Resource, audit, quotas::charge::release, storage::relocation::deletion_delay_hours},
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        blobs,
        events::{self, Event, EventKind},
        files,
        idempotency_keys::Method,
        quotas::QuotaDelta,
        usage_counters::{self, UsageDelta},
        versions,
    },
    domain::{caller::Caller, file::File},
};

/// Deletes a version that is not the current one. Its number is not reused. Its bytes are deleted after the
/// blob deletion delay if no other version references them. Versions of a file in the trash cannot be
/// deleted, so that undeleting restores the file exactly as it was.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed`, `FileDeleted`, `VersionIsCurrent`, `FileRetained` or
/// `EtagMismatch`.
pub async fn delete_file_version(
    app: &App,
    caller: &Caller,
    change: FileChange,
    version: i32,
) -> Result<MutationResponse<File>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let deleted = delete_version_in_tx(app, &mut tx, caller, &change, version).await;
    super::record_if_denied(
        app,
        caller,
        AuditAction::FileVersionDelete,
        change.file,
        tx.finish(deleted).await,
    )
    .await
}

async fn delete_version_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
    version: i32,
) -> Result<MutationResponse<File>, Error> {
    let (method, fields) = (Method::DeleteFileVersion, version.to_be_bytes().to_vec());
    let start = begin_mutation_with_payload(app, tx, caller, change, method, fields).await?;
    let (file, attempt) = match start {
        MutationStart::Replay(response) => return Ok(response),
        MutationStart::Locked(file, attempt) => (*file, attempt),
    };
    if file.trash.is_some() {
        return Err(Error::FileDeleted);
    }
    if version == file.version {
        return Err(Error::VersionIsCurrent(version));
    }
    purge::check_retention(tx, &file).await?;
    let deleted = versions::delete_one(tx, file.id, version).await?;
    if deleted.blobs.is_empty() {
        return Err(Error::NotFound(Resource::Version));
    }
    let file = files::touch(tx, file.id, &caller.actor.id).await?;
    let file = load_file_details(tx, file).await?;

    let mut entry = audit::new_entry(caller, AuditAction::FileVersionDelete).for_version(file.id, version);
    entry.details = serde_json::json!({ "size_bytes": deleted.charge.bytes() });
    audit_entries::insert(tx, &[entry]).await?;
    let event = Event::for_version(EventKind::FileVersionDeleted, &file, version, &caller.actor.id);
    events::insert(tx, &[event]).await?;

    let mut delta = UsageDelta::default();
    for (kind, bytes) in &deleted.charge.0 {
        delta.add_bytes(&file.category, *kind, -bytes);
    }
    usage_counters::apply_delta(tx, &delta).await?;
    blobs::schedule_deletion(tx, &deleted.blobs, deletion_delay_hours(app)).await?;
    release(tx, Some(&file.owner_id), QuotaDelta::for_bytes(-deleted.charge.bytes())).await?;
    finish_mutation(tx, attempt, file).await
}
