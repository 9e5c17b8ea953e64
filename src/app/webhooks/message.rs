//! The message that is sent for an event.

use serde::Serialize;
use serde_json::json;

use crate::{
    app::Error,
    crypto::webhook_secret::WebhookSecret,
    db::{event_stream::StoredEvent, events::EventSubject},
    domain::{clock::Timestamp, digest::Digest, event_position::EventPosition, ids::TenantId},
};

/// The number of hexadecimal digits of the database incarnation's digest in a message id.
const INCARNATION_DIGITS: usize = 8;

/// A signed message.
#[derive(Debug)]
pub(super) struct Message {
    /// Identical in every attempt to send this event, so that receivers can detect duplicates. It includes the
    /// incarnation of the database in which the event was written, because two databases that were restored from one
    /// backup have the same epochs.
    pub(super) id: String,
    pub(super) timestamp_seconds: i64,
    /// One or two signatures, separated by a space.
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
    /// Creates the message for an event that was written in this incarnation of the database.
    pub(super) fn new(
        event: &StoredEvent,
        tenant: TenantId,
        incarnation: &str,
        secrets: &[WebhookSecret],
        now: Timestamp,
    ) -> Result<Self, Error> {
        let data = match event.subject {
            EventSubject::File { id, version } => json!({
                "position": event.position,
                "tenant_id": tenant,
                "file_id": id,
                "version": version,
                "revision": event.revision,
                "actor_id": event.actor_id,
            }),
            EventSubject::Webhook(id) => json!({
                "position": event.position,
                "tenant_id": tenant,
                "webhook_id": id,
                "actor_id": event.actor_id,
            }),
            EventSubject::QuotaAlert { id, level } => json!({
                "position": event.position,
                "tenant_id": tenant,
                "quota_alert_id": id,
                "level": level,
                "actor_id": event.actor_id,
            }),
        };
        // `file_created` becomes `file.created`.
        let kind = event.kind.as_str().replacen('_', ".", 1);
        let body = Body { kind, timestamp: event.create_time, data: &data };
        let body = serde_json::to_vec(&body).map_err(Error::internal)?;
        let (id, timestamp_seconds) = (message_id(event.position, incarnation), now.timestamp());
        let signed = secrets.iter().map(|secret| secret.sign(&id, timestamp_seconds, &body));
        let signed: Vec<String> = signed.collect::<Result<_, _>>().map_err(Error::internal)?;
        Ok(Self { id, timestamp_seconds, signature: signed.join(" "), body })
    }
}

fn message_id(position: EventPosition, incarnation: &str) -> String {
    let incarnation: String =
        Digest::compute(incarnation.as_bytes()).to_string().chars().take(INCARNATION_DIGITS).collect();
    format!("evt_{incarnation}_{position}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_restored_from_one_backup_send_other_ids() {
        let position = EventPosition::start_of(1, 500);
        let id = message_id(position, "7-00000001-5");
        assert_eq!(id, message_id(position, "7-00000001-5"), "each attempt has the same id");
        assert_ne!(id, message_id(position, "7-00000002-5"), "another timeline");
        assert_ne!(id, message_id(position, "8-00000001-5"), "another server");
        assert_ne!(id, message_id(EventPosition::start_of(2, 500), "7-00000001-5"));
    }
}
