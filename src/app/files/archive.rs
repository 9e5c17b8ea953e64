//! Archives a file; what takes it out again differs only in the direction, so it is here too (`set`).

use super::{Changed, Claimed, FileChange, claim, conclude, filled, note};
use crate::{
    app::{App, Error, storage::settle_class},
    db::{TenantTx, Viewer, audit_entries::AuditAction, events::EventKind, files, idempotency_keys::Method},
    domain::{caller::Caller, file::File},
};

/// Archives an available file: its record stays readable, its bytes do not. It goes on counting against the quota. Where the
/// store has a class for it, a job moves the bytes there.
///
/// # Errors
/// `NotFound`, `NotAllowed`, `FileDeleted`, `FileNotAvailable`, `EtagMismatch`.
pub async fn archive(app: &App, caller: &Caller, change: FileChange) -> Result<Changed<File>, Error> {
    set(app, caller, change, true).await
}

/// Moves a file into the archive, or out of it. One that is where it is to be stays as it is.
pub(super) async fn set(
    app: &App,
    caller: &Caller,
    change: FileChange,
    to_archive: bool,
) -> Result<Changed<File>, Error> {
    let action = if to_archive { AuditAction::FileArchive } else { AuditAction::FileUnarchive };
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let moved = run(app, &mut tx, caller, &change, to_archive).await;
    super::recorded(app, caller, action, change.file, tx.finish(moved).await).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
    to_archive: bool,
) -> Result<Changed<File>, Error> {
    let (method, action, kind) = match to_archive {
        true => (Method::ArchiveFile, AuditAction::FileArchive, EventKind::FileArchived),
        false => (Method::UnarchiveFile, AuditAction::FileUnarchive, EventKind::FileUnarchived),
    };
    let (mut file, attempt) = match claim(app, tx, caller, change, method).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    match to_archive {
        true => file.state().may_be_archived()?,
        false => file.state().may_be_unarchived()?,
    }
    if file.archive_time.is_some() != to_archive {
        let moved = files::set_archived(tx, file.id, &caller.actor.id, to_archive).await?;
        note(tx, caller, &file, action, kind).await?;
        settle_class::ask(app, tx, file.id).await?;
        file = moved;
    }
    let file = filled(tx, file).await?;
    conclude(tx, attempt, file).await
}
