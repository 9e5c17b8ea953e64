//! A retried mutation with the same request id has one effect and one answer, also across a crash: the answer is stored in
//! the transaction of the effect, under a lock on the id.

use serde::{Serialize, de::DeserializeOwned};

use super::{App, Error};
use crate::{
    db::{
        TenantTx,
        idempotency_keys::{self, Method, StoredAnswer},
    },
    domain::{
        digest::{Digest, Hasher},
        ids::RequestId,
    },
};

/// The identity of one mutation, for as long as its transaction lasts.
pub(super) struct Attempt {
    request_id: RequestId,
    method: Method,
    payload: Digest,
}

/// What the request id is known to have done.
pub(super) enum Begun<T> {
    /// Nothing yet: do it, then [`Attempt::record`] the answer.
    Fresh(Option<Attempt>),
    /// This, already.
    Replay(T),
}

/// Looks the request id up, and locks it until the transaction ends.
pub(super) async fn begin<T: DeserializeOwned>(
    app: &App,
    tx: &mut TenantTx,
    request_id: Option<RequestId>,
    method: Method,
    payload: &[Vec<u8>],
) -> Result<Begun<T>, Error> {
    let Some(request_id) = request_id else { return Ok(Begun::Fresh(None)) };
    tx.note_request_id();
    let payload = fingerprint(payload);
    if idempotency_keys::lock(tx, &[request_id]).await?.is_empty() {
        return Err(Error::RequestInProgress);
    }
    let hours = hours(app);
    match idempotency_keys::find(tx, &[request_id], hours).await?.pop() {
        None => Ok(Begun::Fresh(Some(Attempt { request_id, method, payload }))),
        Some(stored) => replay(stored, method, payload).map(Begun::Replay),
    }
}

/// The stored answer, if it was given to the same method and payload.
pub(super) fn replay<T: DeserializeOwned>(
    stored: StoredAnswer,
    method: Method,
    payload: Digest,
) -> Result<T, Error> {
    if stored.method != method || stored.payload != payload {
        return Err(Error::RequestIdReused);
    }
    serde_json::from_value(stored.answer).map_err(Error::internal)
}

/// The same for a payload that is still in its fields.
pub(super) fn replay_of<T: DeserializeOwned>(
    stored: StoredAnswer,
    method: Method,
    payload: &[Vec<u8>],
) -> Result<T, Error> {
    replay(stored, method, fingerprint(payload))
}

/// For how long answers are kept.
pub(super) fn hours(app: &App) -> u32 {
    u32::try_from(app.limits.retention.idempotency_hours).unwrap_or(u32::MAX)
}

impl Attempt {
    /// Stores the answer in the transaction of the effect.
    pub(super) async fn record<T: Serialize>(self, tx: &mut TenantTx, answer: &T) -> Result<(), Error> {
        let answer = serde_json::to_value(answer).map_err(Error::internal)?;
        let Self { request_id, method, payload } = self;
        idempotency_keys::insert(tx, &[StoredAnswer { request_id, method, payload, answer }]).await?;
        Ok(())
    }
}

fn fingerprint(fields: &[Vec<u8>]) -> Digest {
    let mut hasher = Hasher::default();
    for field in fields {
        hasher.field(field);
    }
    hasher.finish()
}
