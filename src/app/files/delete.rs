//! Moves a file to the trash.

use super::{
    Changed, Claimed, FileChange, claim, conclude, filled, note_with, purge::remove, settlement::Settlement,
};
use crate::{
    app::{App, Error},
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

/// Moves a file to the trash; where the policy keeps none, purges it and answers nothing. A file that is in the trash
/// already is answered as it is.
///
/// # Errors
/// `NotFound`, `NotAllowed`, `EtagMismatch`, and those of purging where that is what the policy does.
pub async fn delete(app: &App, caller: &Caller, change: FileChange) -> Result<Changed<Option<File>>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let deleted = run(app, &mut tx, caller, &change).await;
    super::recorded(app, caller, AuditAction::FileDelete, change.file, tx.finish(deleted).await).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
) -> Result<Changed<Option<File>>, Error> {
    let (file, attempt) = match claim(app, tx, caller, change, Method::DeleteFile).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    let deleted = if file.trash.is_some() {
        Some(filled(tx, file).await?)
    } else {
        dispose(app, tx, caller, file, serde_json::json!({})).await?
    };
    conclude(tx, attempt, deleted).await
}

/// Moves a locked file to the trash and answers it; where the policy keeps none, purges it and answers nothing. The details
/// are what else the audit log says about the move.
pub(super) async fn dispose(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    file: File,
    details: serde_json::Value,
) -> Result<Option<File>, Error> {
    if caller.tenant.policy.trash.days == 0 {
        remove(app, tx, caller, file).await?;
        return Ok(None);
    }
    let mut settlement = Settlement::default();
    let deleted = to_trash(tx, caller, &file, (&mut settlement, details)).await?;
    let deleted = filled(tx, deleted).await?;
    settlement.apply(app, tx).await?;
    Ok(Some(deleted))
}

/// Moves a locked file to the trash, up to what that gives back.
pub(super) async fn to_trash(
    tx: &mut TenantTx,
    caller: &Caller,
    file: &File,
    (settlement, details): (&mut Settlement, serde_json::Value),
) -> Result<File, Error> {
    let trash = caller.tenant.policy.trash;
    let deleted = files::trash(tx, file.id, &caller.actor.id, trash.days).await?;
    file_readers::set_deleted(tx, file.id, true).await?;
    let event = Event::of(EventKind::FileDeleted, file, &caller.actor.id);
    note_with(tx, caller, event, (AuditAction::FileDelete, details)).await?;
    if !trash.counts_against_quota {
        settlement.release(file, &versions::charge(tx, file.id).await?);
    }
    Ok(deleted)
}
