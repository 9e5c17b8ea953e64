//! Takes a file out of the archive.

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

/// Makes the bytes of an archived file readable again, as far as their state allows it. A file that is not archived is
/// answered as it is.
///
/// # Errors
/// `NotFound`, `NotAllowed`, `FileDeleted`.
pub async fn unarchive(
    app: &App,
    caller: &Caller,
    id: FileId,
    request_id: Option<RequestId>,
) -> Result<Changed<File>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let readable = run(app, &mut tx, caller, id, request_id).await;
    super::recorded(app, caller, AuditAction::FileUnarchive, id, tx.finish(readable).await).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: FileId,
    request_id: Option<RequestId>,
) -> Result<Changed<File>, Error> {
    let (file, attempt) = match claim(app, tx, caller, id, request_id, Method::UnarchiveFile).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    file.state().may_be_unarchived()?;
    let file = match file.archive_time {
        Some(_) => out_of_archive(tx, caller, &file).await?,
        None => file,
    };
    let file = filled(tx, file).await?;
    conclude(tx, attempt, file).await
}

async fn out_of_archive(tx: &mut TenantTx, caller: &Caller, file: &File) -> Result<File, Error> {
    let readable = files::set_archived(tx, file.id, &caller.actor.id, false).await?;
    note(tx, caller, file, AuditAction::FileUnarchive, EventKind::FileUnarchived).await?;
    Ok(readable)
}
