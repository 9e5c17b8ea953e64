//! Use cases of files: reading, listing, updating, deleting, and watching.

mod archive;
pub mod batch_delete;
pub mod batch_get;
pub(in crate::app) mod block_stream;
mod copy;
pub mod count_downloads;
mod delete;
pub mod delete_expired;
mod delete_version;
pub(in crate::app) mod download;
mod get;
mod list;
mod list_versions;
mod pending_release;
mod purge;
pub mod purge_trash;
mod read_records;
mod recategorize;
mod release_hold;
mod restore_version;
mod set_hold;
mod transfer_ownership;
mod unarchive;
mod undelete;
mod update;
pub(in crate::app) mod verified_stream;
pub mod watch;

pub use self::{
    archive::archive_file,
    batch_delete::batch_delete_files,
    batch_get::batch_get_files,
    block_stream::DownloadPiece,
    copy::{CopyRequest, copy_file},
    delete::delete_file,
    delete_version::delete_file_version,
    download::{Download, DownloadRequest, download_file},
    get::get_file,
    list::{ListRequest, list_files},
    list_versions::{FileVersionList, ListVersionsRequest, list_file_versions},
    purge::purge_file,
    release_hold::release_legal_hold,
    restore_version::{RestoreRequest, restore_file_version},
    set_hold::{HoldRequest, set_legal_hold},
    transfer_ownership::{TransferRequest, transfer_ownership},
    unarchive::unarchive_file,
    undelete::undelete_file,
    update::{UpdateRequest, update_file},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    App, Error,
    access::{Operation, require_access},
    audit,
    idempotency::{self, Attempt, RequestClaim},
    preconditions::check_etag,
};
use crate::{
    db::{
        DbError, TenantTx, attachments,
        audit_entries::{self, AuditAction},
        download_counts,
        events::{self, Event, EventKind},
        file_locks, file_tags,
        idempotency_keys::Method,
        lists, quotas,
    },
    domain::{
        caller::Caller,
        event_position::EventPosition,
        file::File,
        ids::{FileId, RequestId},
        quota::QuotaState,
    },
};

/// The result of a mutation, and the tenant's quota after it. Stored as the response of its request id.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct MutationResponse<T> {
    /// The result, such as the changed file.
    pub value: T,
    pub quota: QuotaState,
    /// The position of its event; `None` if nothing had to change.
    pub event: Option<EventPosition>,
}

/// The start of a mutation of a file.
enum MutationStart<T> {
    /// A request with this id was already executed, with this response.
    Replay(MutationResponse<T>),
    /// The file is locked and the caller may change it.
    Locked(Box<File>, Option<Attempt>),
}

/// The common fields of requests to change a file.
#[derive(Debug, Clone)]
pub struct FileChange {
    pub file: FileId,
    /// The expected etag of the file. Empty means no check.
    pub if_etag: String,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// Starts a mutation of a file: claims the request id, locks the file, checks that the caller may change it,
/// and checks its etag.
async fn begin_mutation<T: DeserializeOwned>(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
    method: Method,
) -> Result<MutationStart<T>, Error> {
    begin_mutation_with_payload(app, tx, caller, change, method, Vec::new()).await
}

/// Like [`begin_mutation`], for a request with fields other than the id of the file.
async fn begin_mutation_with_payload<T: DeserializeOwned>(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
    method: Method,
    fields: Vec<u8>,
) -> Result<MutationStart<T>, Error> {
    begin_operation(app, tx, caller, change, method, Operation::Change, fields).await
}

/// Like [`begin_mutation_with_payload`], for another operation than [`Operation::Change`].
async fn begin_operation<T: DeserializeOwned>(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
    method: Method,
    operation: Operation,
    fields: Vec<u8>,
) -> Result<MutationStart<T>, Error> {
    app.owners.check_primary()?;
    let FileChange { file: id, if_etag, request_id } = change;
    let mut payload = vec![
        caller.actor.id.clone().into_bytes(),
        id.as_uuid().into_bytes().to_vec(),
        if_etag.clone().into_bytes(),
    ];
    if !fields.is_empty() {
        payload.push(fields);
    }
    let attempt = match idempotency::claim_request(app, tx, *request_id, method, &payload).await? {
        RequestClaim::Replay(response) => {
            idempotency::check_files_visible(tx, caller, &[*id]).await?;
            return Ok(MutationStart::Replay(response));
        }
        RequestClaim::New(attempt) => attempt,
    };
    let file = require_access(caller, file_locks::get_for_update(tx, *id).await?, operation)?;
    check_etag(if_etag, &file.etag())?;
    Ok(MutationStart::Locked(Box::new(file), attempt))
}

/// Ends a mutation: adds the quota and the event position, and stores the response under the request id.
async fn finish_mutation<T: Serialize>(
    tx: &mut TenantTx,
    attempt: Option<Attempt>,
    value: T,
) -> Result<MutationResponse<T>, Error> {
    let response = MutationResponse { value, quota: quotas::get(tx).await?.state(), event: tx.last_event() };
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &response).await?;
    }
    Ok(response)
}

/// Records a change of a file, which is given after the change: its audit entry and its event.
async fn record_change(
    tx: &mut TenantTx,
    caller: &Caller,
    file: &File,
    action: AuditAction,
    kind: EventKind,
) -> Result<(), DbError> {
    record_change_with_details(
        tx,
        caller,
        Event::for_file(kind, file, &caller.actor.id),
        action,
        serde_json::json!({}),
    )
    .await
}

/// Like [`record_change`], with details for the audit log and a custom event.
async fn record_change_with_details(
    tx: &mut TenantTx,
    caller: &Caller,
    event: Event,
    action: AuditAction,
    details: serde_json::Value,
) -> Result<(), DbError> {
    let mut entry = audit::new_entry(caller, action).for_version(event.file, event.version);
    entry.details = details;
    audit_entries::insert(tx, &[entry]).await?;
    events::insert(tx, &[event]).await
}

/// Records a denied action on a file in the audit log. Passes other outcomes through.
async fn record_if_denied<T>(
    app: &App,
    caller: &Caller,
    action: AuditAction,
    id: FileId,
    outcome: Result<T, Error>,
) -> Result<T, Error> {
    match outcome {
        Err(error @ Error::NotAllowed(_)) => {
            Err(audit::record_denial(app, caller, action, Some(id), error).await)
        }
        outcome => outcome,
    }
}

/// Adds tags, attachments and download counts, which are in separate tables, to files that the caller may
/// see.
pub(super) async fn load_details(tx: &mut TenantTx, files: &mut [File]) -> Result<(), DbError> {
    if files.is_empty() {
        return Ok(());
    }
    let mut counts = download_counts::list(tx, &lists::file_ids(files)).await?;
    for file in &mut *files {
        file.access = Some(counts.remove(&file.id).unwrap_or_default());
    }
    load_tags_and_attachments(tx, files).await
}

/// Adds tags and attachments only. A download omits the count to save a round trip.
async fn load_tags_and_attachments(tx: &mut TenantTx, files: &mut [File]) -> Result<(), DbError> {
    let ids = lists::file_ids(files);
    let mut tags = file_tags::list(tx, &ids).await?;
    let mut attachments = attachments::list(tx, &ids).await?;
    for file in files {
        file.tags = tags.remove(&file.id).unwrap_or_default();
        file.attachments = attachments.remove(&file.id).unwrap_or_default();
    }
    Ok(())
}

/// Adds tags, attachments and the download count to one file.
async fn load_file_details(tx: &mut TenantTx, mut file: File) -> Result<File, DbError> {
    load_details(tx, std::slice::from_mut(&mut file)).await?;
    Ok(file)
}
