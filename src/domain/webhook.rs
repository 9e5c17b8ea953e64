//! Webhooks: endpoints that events are sent to.

use super::{
    clock::Timestamp, event_position::EventPosition, ids::WebhookId, outgoing_address::check_url,
    sql_enum::sql_enum, text, violations::Violations,
};

/// The maximum length of a description in characters.
const DESCRIPTION_CHARACTERS_MAX: usize = 255;
/// The maximum number of event kinds of one webhook.
const KINDS_MAX: usize = 50;

sql_enum! {
    /// The state of a webhook.
    WebhookState {
        /// Events are delivered.
        Active = 1 => "active",
        /// An admin paused the deliveries.
        Paused = 2 => "paused",
        /// The service stopped the deliveries after too many failures.
        Disabled = 3 => "disabled",
    }
}

sql_enum! {
    /// The state of a delivery that failed.
    DeliveryState {
        /// All attempts failed.
        Dead = 1 => "dead",
        /// A redelivery is pending.
        Waiting = 2 => "waiting",
        /// A redelivery succeeded.
        Delivered = 3 => "delivered",
    }
}

/// A webhook without its secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Webhook {
    pub id: WebhookId,
    pub url: String,
    pub description: String,
    /// The numbers of the event kinds; empty means all.
    pub kinds: Vec<i16>,
    pub state: WebhookState,
    pub state_reason: String,
    pub position: EventPosition,
    pub failed_attempts: i32,
    pub last_error: String,
    pub next_attempt_time: Timestamp,
    pub created_by: String,
    pub create_time: Timestamp,
    pub update_time: Timestamp,
    pub revision: i64,
}

/// The changes to a webhook. Absent fields are unchanged.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct WebhookChange {
    pub url: Option<String>,
    pub description: Option<String>,
    pub kinds: Option<Vec<i16>>,
    pub state: Option<WebhookState>,
}

impl WebhookChange {
    /// Checks every field that is set.
    ///
    /// # Errors
    /// Returns all violations, with the field paths of the API.
    pub fn check(&self, allow_private_addresses: bool) -> Result<(), Violations> {
        let mut violations = Violations::new();
        if let Some(url) = &self.url {
            violations.ok_or_add("webhook.url", check_url(url, allow_private_addresses).map(|_| ()));
        }
        if let Some(description) = &self.description {
            violations.ok_or_add(
                "webhook.description",
                text::check_optional_line(description, DESCRIPTION_CHARACTERS_MAX),
            );
        }
        if let Some(kinds) = self.kinds.as_ref().filter(|kinds| kinds.len() > KINDS_MAX) {
            violations.add("webhook.kinds", format!("has {} values; the limit is {KINDS_MAX}", kinds.len()));
        }
        if self.state == Some(WebhookState::Disabled) {
            violations.add("webhook.state", "must be ACTIVE or PAUSED");
        }
        violations.into_result()
    }

    /// Returns the names of the fields that are set.
    pub fn field_names(&self) -> Vec<&'static str> {
        let set = [
            ("url", self.url.is_some()),
            ("description", self.description.is_some()),
            ("kinds", self.kinds.is_some()),
            ("state", self.state.is_some()),
        ];
        set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }
}
