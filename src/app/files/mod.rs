//! Files: reading, listing, and their way out.

pub mod archive;
pub mod batch_delete;
pub mod batch_get;
pub mod copy;
pub mod count_downloads;
pub mod delete;
pub mod delete_expired;
pub mod delete_version;
pub mod download;
pub mod empty_trash;
pub mod get;
pub mod list;
pub mod list_versions;
pub mod purge;
pub mod reap;
mod recategorize;
pub mod release_hold;
pub mod restore_version;
pub mod set_hold;
mod settlement;
pub mod transfer_ownership;
pub mod unarchive;
pub mod undelete;
pub mod update;
pub mod watch;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    App, Error,
    access::{can_write, seen},
    audit,
    idempotency::{self, Attempt, Begun},
    preconditions::check_etag,
};
use crate::{
    db::{
        DbError, TenantTx, attachments,
        audit_entries::{self, AuditAction},
        download_counts,
        events::{self, Event, EventKind},
        file_tags, files,
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

/// A change that was made, and the tenant's quota after it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Changed<T> {
    /// What it came to.
    pub value: T,
    /// The quota.
    pub quota: QuotaState,
    /// Where its event stands; none where nothing had to change.
    pub event: Option<EventPosition>,
}

/// A change that was asked for: answered before, or ours to make.
enum Claimed<T> {
    /// Its request id was answered already.
    Answered(Changed<T>),
    /// The file is locked, and the caller may change it.
    Ours(Box<File>, Option<Attempt>),
}

/// What every request to change a file contains.
#[derive(Debug, Clone)]
pub struct FileChange {
    /// The file.
    pub file: FileId,
    /// The etag that the file must have; empty for any.
    pub if_etag: String,
    /// Makes retries safe.
    pub request_id: Option<RequestId>,
}

/// What every change of a file begins with: its request id, the file's lock, the guard, and the precondition.
async fn claim<T: DeserializeOwned>(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
    method: Method,
) -> Result<Claimed<T>, Error> {
    claim_with(app, tx, caller, change, (method, Vec::new())).await
}

/// The same for a change that says more than which file it is about.
async fn claim_with<T: DeserializeOwned>(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: &FileChange,
    (method, said): (Method, Vec<u8>),
) -> Result<Claimed<T>, Error> {
    let FileChange { file: id, if_etag, request_id } = change;
    let mut payload = vec![
        caller.actor.id.clone().into_bytes(),
        id.as_uuid().into_bytes().to_vec(),
        if_etag.clone().into_bytes(),
    ];
    if !said.is_empty() {
        payload.push(said);
    }
    let attempt = match idempotency::begin(app, tx, *request_id, method, &payload).await? {
        Begun::Replay(answer) => return Ok(Claimed::Answered(answer)),
        Begun::Fresh(attempt) => attempt,
    };
    let file = seen(caller, files::get_for_update(tx, *id).await?)?;
    can_write(caller, &file)?;
    check_etag(if_etag, &file.etag())?;
    Ok(Claimed::Ours(Box::new(file), attempt))
}

/// What every change of a file ends with: the quota after it, and the answer under its request id.
async fn conclude<T: Serialize>(
    tx: &mut TenantTx,
    attempt: Option<Attempt>,
    value: T,
) -> Result<Changed<T>, Error> {
    let changed = Changed { value, quota: quotas::get(tx).await?.state(), event: tx.last_event() };
    if let Some(attempt) = attempt {
        attempt.record(tx, &changed).await?;
    }
    Ok(changed)
}

/// Writes a change of a file down: its audit entry and its event.
async fn note(
    tx: &mut TenantTx,
    caller: &Caller,
    file: &File,
    action: AuditAction,
    kind: EventKind,
) -> Result<(), DbError> {
    note_with(tx, caller, Event::of(kind, file, &caller.actor.id), (action, serde_json::json!({}))).await
}

/// The same with what else there is to say in the audit log, and with an event that others may hear of too.
async fn note_with(
    tx: &mut TenantTx,
    caller: &Caller,
    event: Event,
    (action, details): (AuditAction, serde_json::Value),
) -> Result<(), DbError> {
    let mut entry = audit::entry(caller, action, Some((event.file, event.version)));
    entry.details = details;
    audit_entries::insert(tx, &[entry]).await?;
    events::insert(tx, &[event]).await
}

/// Records a denial of an act on a file; passes everything else on.
async fn recorded<T>(
    app: &App,
    caller: &Caller,
    action: AuditAction,
    id: FileId,
    outcome: Result<T, Error>,
) -> Result<T, Error> {
    match outcome {
        Err(why @ Error::NotAllowed(_)) => Err(audit::denied(app, caller, action, Some(id), why).await),
        outcome => outcome,
    }
}

/// Adds tags, attachments and download counts, which stand in rows of their own, to files that the caller was shown.
pub(super) async fn fill(tx: &mut TenantTx, files: &mut [File]) -> Result<(), DbError> {
    if files.is_empty() {
        return Ok(());
    }
    let mut counts = download_counts::list(tx, &lists::ids(files)).await?;
    for file in &mut *files {
        file.access = Some(counts.remove(&file.id).unwrap_or_default());
    }
    fill_texts(tx, files).await
}

/// Adds tags and attachments alone: a download does without the count, which would cost it a round trip.
async fn fill_texts(tx: &mut TenantTx, files: &mut [File]) -> Result<(), DbError> {
    let ids = lists::ids(files);
    let mut tags = file_tags::list(tx, &ids).await?;
    let mut attachments = attachments::list(tx, &ids).await?;
    for file in files {
        file.tags = tags.remove(&file.id).unwrap_or_default();
        file.attachments = attachments.remove(&file.id).unwrap_or_default();
    }
    Ok(())
}

/// Adds all of it to one file.
async fn filled(tx: &mut TenantTx, mut file: File) -> Result<File, DbError> {
    fill(tx, std::slice::from_mut(&mut file)).await?;
    Ok(file)
}
