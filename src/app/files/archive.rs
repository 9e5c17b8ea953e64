//! Archives a file.

use super::{Changed, Claimed, claim, conclude, filled, note};
use crate::{
    app::{App, Error},
    db::{TenantTx, Viewer, audit_entries::AuditAction, events::EventKind, files, idempotency_keys::Method},
    domain::{
        caller::Caller,
        file::File,
        ids::{FileId, RequestId},
    },
};

/// Archives an available file: its record stays readable, its bytes do not. It goes on counting against the quota.
///
/// # Errors
/// `NotFound`, `NotAllowed`, `FileDeleted`, `FileNotAvailable`.
pub async fn archive(
    app: &App,
    caller: &Caller,
    id: FileId,
    request_id: Option<RequestId>,
) -> Result<Changed<File>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let archived = run(app, &mut tx, caller, id, request_id).await;
    super::recorded(app, caller, AuditAction::FileArchive, id, tx.finish(archived).await).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: FileId,
    request_id: Option<RequestId>,
) -> Result<Changed<File>, Error> {
    let (file, attempt) = match claim(app, tx, caller, id, request_id, Method::ArchiveFile).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    file.state().may_be_archived()?;
    let file = match file.archive_time {
        Some(_) => file,
        None => to_archive(tx, caller, &file).await?,
    };
    let file = filled(tx, file).await?;
    conclude(tx, attempt, file).await
}

async fn to_archive(tx: &mut TenantTx, caller: &Caller, file: &File) -> Result<File, Error> {
    let archived = files::set_archived(tx, file.id, &caller.actor.id, true).await?;
    note(tx, caller, file, AuditAction::FileArchive, EventKind::FileArchived).await?;
    Ok(archived)
}
