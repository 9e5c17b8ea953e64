//! Idempotent mutations. Retries with the same request id have one effect and one response, also across a
//! crash: the response is stored in the transaction of the effect, under a lock on the id.

use serde::{Serialize, de::DeserializeOwned};

use super::{App, Error, Resource, access::can_see};
use crate::{
    db::{
        TenantTx, files,
        idempotency_keys::{self, Method, StoredResponse},
        tombstones,
    },
    domain::{
        caller::Caller,
        digest::{Digest, Hasher},
        ids::{FileId, RequestId},
    },
};

/// The identity of a mutation in progress. Valid for the duration of its transaction.
pub(super) struct Attempt {
    request_id: RequestId,
    method: Method,
    payload: Digest,
}

/// The result of claiming a request id.
pub(super) enum RequestClaim<T> {
    /// The id is new: execute the request, then store its response with [`Attempt::record_response`]. `None`
    /// if the request has no id.
    New(Option<Attempt>),
    /// The request was already executed, with this response.
    Replay(T),
}

/// Looks up a request id and locks it until the end of the transaction.
///
/// # Errors
/// Returns `RequestInProgress` if another transaction holds the lock, and `RequestIdReused` if the id was
/// used for another method or payload.
pub(super) async fn claim_request<T: DeserializeOwned>(
    app: &App,
    tx: &mut TenantTx,
    request_id: Option<RequestId>,
    method: Method,
    payload: &[Vec<u8>],
) -> Result<RequestClaim<T>, Error> {
    let Some(request_id) = request_id else { return Ok(RequestClaim::New(None)) };
    tx.note_request_id();
    let payload = hash_fields(payload);
    if idempotency_keys::lock(tx, &[request_id]).await?.is_empty() {
        return Err(Error::RequestInProgress);
    }
    let hours = retention_hours(app);
    match idempotency_keys::list_responses(tx, &[request_id], hours).await?.pop() {
        None => Ok(RequestClaim::New(Some(Attempt { request_id, method, payload }))),
        Some(stored) => replay_response(stored, method, payload).map(RequestClaim::Replay),
    }
}

/// Decodes a stored response.
///
/// # Errors
/// Returns `RequestIdReused` if the response belongs to another method or payload.
pub(super) fn replay_response<T: DeserializeOwned>(
    stored: StoredResponse,
    method: Method,
    payload: Digest,
) -> Result<T, Error> {
    if stored.method != method || stored.payload != payload {
        return Err(Error::RequestIdReused);
    }
    serde_json::from_value(stored.response).map_err(Error::internal)
}

/// Like [`replay_response`], for a payload that is not hashed yet.
pub(super) fn replay_response_of_fields<T: DeserializeOwned>(
    stored: StoredResponse,
    method: Method,
    payload: &[Vec<u8>],
) -> Result<T, Error> {
    replay_response(stored, method, hash_fields(payload))
}

/// Checks that the caller may still see the files of a stored response. `tx` must have the caller's permissions.
/// A file that was purged since is not hidden: a retry of its deletion gets the stored response.
///
/// # Errors
/// Returns `NotFound` if one of the files is hidden from the caller now.
pub(super) async fn check_files_visible(
    tx: &mut TenantTx,
    caller: &Caller,
    ids: &[FileId],
) -> Result<(), Error> {
    let found = files::get_all(tx, ids).await?;
    let is_visible = |id: &FileId| found.iter().any(|found| found.file.id == *id && can_see(caller, found));
    let missing: Vec<FileId> = ids.iter().filter(|id| !is_visible(id)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let purged = tombstones::list_purged(tx, &missing).await?;
    if missing.iter().all(|id| purged.contains(id)) { Ok(()) } else { Err(Error::NotFound(Resource::File)) }
}

/// Returns how long responses are stored, in hours.
pub(super) fn retention_hours(app: &App) -> u32 {
    u32::try_from(app.limits.retention.idempotency_hours).unwrap_or(u32::MAX)
}

impl Attempt {
    /// Stores the response in the transaction of the effect.
    pub(super) async fn record_response<T: Serialize>(
        self,
        tx: &mut TenantTx,
        response: &T,
    ) -> Result<(), Error> {
        let response = serde_json::to_value(response).map_err(Error::internal)?;
        let Self { request_id, method, payload } = self;
        idempotency_keys::insert(tx, &[StoredResponse { request_id, method, payload, response }]).await?;
        Ok(())
    }
}

fn hash_fields(fields: &[Vec<u8>]) -> Digest {
    let mut hasher = Hasher::default();
    for field in fields {
        hasher.field(field);
    }
    hasher.finish()
}
