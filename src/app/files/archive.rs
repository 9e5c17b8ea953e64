//! Archives a file. Unarchiving differs only in the direction and shares this implementation.

use super::{
    FileChange, MutationResponse, MutationStart, begin_mutation, finish_mutation, load_file_details,
    record_change,
};
use crate::{
    app::{App, Error, QuotaShortage, storage::apply_storage_class},
    db::{
        TenantTx, Viewer, audit_entries::AuditAction, events::EventKind, files, idempotency_keys::Method,
        quotas,
    },
    domain::{caller::Caller, file::File},
};

/// Archives an available file. Its record stays readable, its bytes do not, and it still counts against the
/// quota. If the store has an archive class, a job moves the bytes there. The replaced objects count as pending
/// deletion until they are deleted.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed`, `FileDeleted`, `FileNotAvailable`, `EtagMismatch`, or `QuotaBytes` if more bytes
/// are pending deletion than the policy allows.
pub async fn archive_file(
    app: &App,
    caller: &Caller,
    change: FileChange,
) -> Result<MutationResponse<File>, Error> {
    set_archived(app, caller, change, true).await
}

/// Archives or unarchives a file. Does nothing if the file is already in the requested state.
pub(super) async fn set_archived(
    app: &App,
    caller: &Caller,
    change: FileChange,
    to_archive: bool,
) -> Result<MutationResponse<File>, Error> {
    let action = if to_archive { AuditAction::FileArchive } else { AuditAction::FileUnarchive };
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let changed = set_archived_in_tx(app, &mut tx, caller, &change, to_archive).await;
    super::record_if_denied(app, caller, action, change.file, tx.finish(changed).await).await
}

async fn set_archived_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
    to_archive: bool,
) -> Result<MutationResponse<File>, Error> {
    let (method, action, kind) = match to_archive {
        true => (Method::ArchiveFile, AuditAction::FileArchive, EventKind::FileArchived),
        false => (Method::UnarchiveFile, AuditAction::FileUnarchive, EventKind::FileUnarchived),
    };
    let (mut file, attempt) = match begin_mutation(app, tx, caller, change, method).await? {
        MutationStart::Replay(response) => return Ok(response),
        MutationStart::Locked(file, attempt) => (*file, attempt),
    };
    match to_archive {
        true => file.state().check_archivable()?,
        false => file.state().check_unarchivable()?,
    }
    if file.archive_time.is_some() != to_archive {
        let changed = files::set_archived(tx, file.id, &caller.actor.id, to_archive).await?;
        record_change(tx, caller, &changed, action, kind).await?;
        let moves_bytes = apply_storage_class::enqueue_if_needed(app, tx, file.id).await?;
        if to_archive && moves_bytes {
            check_pending_deletion(tx, &file).await?;
        }
        file = changed;
    }
    let file = load_file_details(tx, file).await?;
    finish_mutation(tx, attempt, file).await
}

/// Checks that no more bytes are pending deletion than the policy allows. Otherwise archiving and unarchiving a file
/// again and again would store any number of copies. Unarchiving is not checked, so that a file stays readable.
async fn check_pending_deletion(tx: &mut TenantTx, file: &File) -> Result<(), Error> {
    let quota = quotas::get(tx).await?;
    match quota.has_excess_deletions() {
        true => Err(Error::QuotaBytes(QuotaShortage::of_pending_deletion(&quota, file.size_bytes))),
        false => Ok(()),
    }
}
