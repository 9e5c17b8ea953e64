//! Removes one version of a file for good.

use super::{Changed, Claimed, FileChange, claim_with, conclude, filled, purge};
use crate::{
    app::{App, Error, audit},
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        blobs,
        events::{self, Event, EventKind},
        files,
        idempotency_keys::Method,
        quotas::{self, QuotaDelta},
        usage_counters::{self, UsageDelta},
        versions,
    },
    domain::{caller::Caller, file::File},
};

/// Removes a version that is not the current one; its number is not used again. Its bytes go when no other version stands
/// on them and the undelete window of the store has passed. A file in the trash keeps its versions as they are, so that what
/// comes back is what was deleted.
///
/// # Errors
/// `NotFound`, `NotAllowed`, `FileDeleted`, `VersionIsCurrent`, `FileRetained`, `EtagMismatch`.
pub async fn delete_version(
    app: &App,
    caller: &Caller,
    change: FileChange,
    version: i32,
) -> Result<Changed<File>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let deleted = run(app, &mut tx, caller, &change, version).await;
    super::recorded(app, caller, AuditAction::FileVersionDelete, change.file, tx.finish(deleted).await).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
    version: i32,
) -> Result<Changed<File>, Error> {
    let attempt = (Method::DeleteFileVersion, version.to_be_bytes().to_vec());
    let (file, attempt) = match claim_with(app, tx, caller, change, attempt).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    if file.trash.is_some() {
        return Err(Error::FileDeleted);
    }
    if version == file.version {
        return Err(Error::VersionIsCurrent(version));
    }
    purge::check_kept(tx, &file).await?;
    let removed = versions::delete_one(tx, file.id, version).await?;
    if removed.blobs.is_empty() {
        return Err(Error::NotFound("version"));
    }
    let hours = u32::try_from(app.limits.retention.undelete_window_hours).unwrap_or(u32::MAX);
    blobs::release(tx, &removed.blobs, hours).await?;
    let file = files::touch(tx, file.id, &caller.actor.id).await?;
    let file = filled(tx, file).await?;

    let mut entry = audit::entry(caller, AuditAction::FileVersionDelete, Some((file.id, version)));
    entry.details = serde_json::json!({ "size_bytes": removed.charge.bytes() });
    audit_entries::insert(tx, &[entry]).await?;
    let event = Event::of_version(EventKind::FileVersionDeleted, &file, version, &caller.actor.id);
    events::insert(tx, &[event]).await?;

    let mut delta = UsageDelta::default();
    for (kind, bytes) in &removed.charge.0 {
        delta.bytes(&file.category, *kind, -bytes);
    }
    usage_counters::apply(tx, &delta).await?;
    quotas::apply(tx, QuotaDelta::bytes(-removed.charge.bytes())).await?;
    conclude(tx, attempt, file).await
}
