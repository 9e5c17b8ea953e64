//! Endpoints that events are sent to.

use super::{
    clock::Timestamp, event_position::EventPosition, ids::WebhookId, outgoing_address::check_url,
    sql_enum::sql_enum, text, violations::Violations,
};

/// The longest description, in characters.
const DESCRIPTION_CHARACTERS_MAX: usize = 255;
/// The most kinds in one list.
const KINDS_MAX: usize = 50;

sql_enum! {
    /// Whether events are sent to an endpoint.
    WebhookState {
        /// They are.
        Active = 1 => "active",
        /// An admin has stopped it.
        Paused = 2 => "paused",
        /// The service has given it up.
        Disabled = 3 => "disabled",
    }
}

sql_enum! {
    /// What became of an event that could not be delivered.
    DeliveryState {
        /// It was given up.
        Dead = 1 => "dead",
        /// It is sent again soon.
        Waiting = 2 => "waiting",
        /// It was delivered after all.
        Delivered = 3 => "delivered",
    }
}

/// An endpoint, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the contract, which explains them")]
pub struct Webhook {
    pub id: WebhookId,
    pub url: String,
    pub description: String,
    /// Numbers of kinds; empty means all.
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

/// What an admin sets of an endpoint; what is absent stays.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[allow(missing_docs, reason = "the fields are those of the contract, which explains them")]
pub struct WebhookChange {
    pub url: Option<String>,
    pub description: Option<String>,
    pub kinds: Option<Vec<i16>>,
    pub state: Option<WebhookState>,
}

impl WebhookChange {
    /// Checks everything that is set.
    ///
    /// # Errors
    /// Every violation, with the paths of the contract.
    pub fn check(&self, allows_private: bool) -> Result<(), Violations> {
        let mut wrong = Violations::new();
        if let Some(url) = &self.url {
            wrong.take("webhook.url", check_url(url, allows_private).map(|_| ()));
        }
        if let Some(description) = &self.description {
            wrong.take("webhook.description", text::optional_line(description, DESCRIPTION_CHARACTERS_MAX));
        }
        if self.kinds.as_ref().is_some_and(|kinds| kinds.len() > KINDS_MAX) {
            wrong.add("webhook.kinds", format!("must have at most {KINDS_MAX} values"));
        }
        if self.state == Some(WebhookState::Disabled) {
            wrong.add("webhook.state", "must be ACTIVE or PAUSED");
        }
        wrong.into_result()
    }

    /// The names of the fields that are set.
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
