//! What is sent of an event.

use serde::Serialize;
use serde_json::json;

use crate::{
    app::Error,
    crypto::webhook_secret::WebhookSecret,
    db::event_stream::StoredEvent,
    domain::{clock::Timestamp, digest::Digest, ids::TenantId},
};

/// How many hexadecimal digits of the digest of a history tell it from others.
const HISTORY_DIGITS: usize = 8;

/// A message, ready to be sent.
#[derive(Debug)]
pub(super) struct Message {
    /// The same for every attempt to send this event, so that receivers can tell a repetition; it names the history of the
    /// database too, because after a restore another event can stand at the same position.
    pub(super) id: String,
    pub(super) timestamp_seconds: i64,
    /// One or two signatures, with a space between.
    pub(super) signature: String,
    pub(super) body: Vec<u8>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    timestamp: Timestamp,
    data: &'a serde_json::Value,
}

impl Message {
    pub(super) fn of(
        event: &StoredEvent,
        (tenant, incarnation): (TenantId, &str),
        secrets: &[WebhookSecret],
        now: Timestamp,
    ) -> Result<Self, Error> {
        let data = json!({
            "position": event.position,
            "tenant_id": tenant,
            "file_id": event.file,
            "version": event.version,
            "actor_id": event.actor_id,
        });
        // `file_created` is `file.created` there.
        let kind = event.kind.as_str().replacen('_', ".", 1);
        let body = Body { kind, timestamp: event.create_time, data: &data };
        let body = serde_json::to_vec(&body).map_err(Error::internal)?;
        let (id, timestamp_seconds) = (id(event, incarnation), now.timestamp());
        let signed = secrets.iter().map(|secret| secret.sign(&id, timestamp_seconds, &body));
        let signed: Vec<String> = signed.collect::<Result<_, _>>().map_err(Error::internal)?;
        Ok(Self { id, timestamp_seconds, signature: signed.join(" "), body })
    }
}

fn id(event: &StoredEvent, incarnation: &str) -> String {
    let history: String =
        Digest::of(incarnation.as_bytes()).to_string().chars().take(HISTORY_DIGITS).collect();
    format!("evt_{history}_{}", event.position)
}
