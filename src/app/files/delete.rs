//! Moves a file to the trash.

use super::{
    FileChange, MutationResponse, MutationStart, begin_operation, finish_mutation, load_file_details,
    pending_release::PendingRelease, purge::purge_locked, record_change_with_details,
};
use crate::{
    app::{App, Error, access::Operation},
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        events::{Event, EventKind},
        file_readers, files,
        idempotency_keys::Method,
        versions,
    },
    domain::{caller::Caller, file::File},
};

/// Moves a file to the trash, or purges it and returns `None` if the policy has no trash. Returns a file that
/// is already in the trash unchanged.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed` or `EtagMismatch`, and the errors of `purge_file` if the policy has no trash.
pub async fn delete_file(
    app: &App,
    caller: &Caller,
    change: FileChange,
) -> Result<MutationResponse<Option<File>>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let deleted = delete_in_tx(app, &mut tx, caller, &change).await;
    super::record_if_denied(app, caller, AuditAction::FileDelete, change.file, tx.finish(deleted).await).await
}

async fn delete_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
) -> Result<MutationResponse<Option<File>>, Error> {
    let (method, operation) = (Method::DeleteFile, Operation::Delete);
    let begun = begin_operation(app, tx, caller, change, method, operation, Vec::new()).await?;
    let (file, attempt) = match begun {
        MutationStart::Replay(response) => return Ok(response),
        MutationStart::Locked(file, attempt) => (*file, attempt),
    };
    let deleted = if file.trash.is_some() {
        Some(load_file_details(tx, file).await?)
    } else {
        trash_or_purge(app, tx, caller, file, serde_json::json!({})).await?
    };
    finish_mutation(tx, attempt, deleted).await
}

/// Moves a locked file to the trash and returns it, or purges it and returns `None` if the policy has no
/// trash. `details` are added to the audit entry of the move.
pub(super) async fn trash_or_purge(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    file: File,
    details: serde_json::Value,
) -> Result<Option<File>, Error> {
    if caller.tenant.policy.trash.days == 0 {
        purge_locked(app, tx, caller, file).await?;
        return Ok(None);
    }
    let mut release = PendingRelease::default();
    let deleted = move_to_trash(tx, caller, &file, &mut release, details).await?;
    let deleted = load_file_details(tx, deleted).await?;
    release.apply(app, tx).await?;
    Ok(Some(deleted))
}

/// Moves a locked file to the trash. Adds the quota that this releases to `release`, which the caller
/// applies.
pub(super) async fn move_to_trash(
    tx: &mut TenantTx,
    caller: &Caller,
    file: &File,
    release: &mut PendingRelease,
    details: serde_json::Value,
) -> Result<File, Error> {
    let trash = caller.tenant.policy.trash;
    let deleted = files::trash(tx, file.id, &caller.actor.id, trash.days).await?;
    file_readers::set_deleted(tx, file.id, true).await?;
    let event = Event::for_file(EventKind::FileDeleted, &deleted, &caller.actor.id);
    record_change_with_details(tx, caller, event, AuditAction::FileDelete, details).await?;
    if !trash.counts_against_quota {
        release.release_quota(file, &versions::get_charge(tx, file.id).await?);
    }
    Ok(deleted)
}
