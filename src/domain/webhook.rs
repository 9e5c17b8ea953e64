//! Endpoints that events are sent to.

use std::net::IpAddr;

use url::{Host, Url};

use super::{
    clock::Timestamp, event_position::EventPosition, ids::WebhookId, outgoing_address::is_public,
    sql_enum::sql_enum, text, violations::Violations,
};

/// The longest URL, in bytes.
const URL_BYTES_MAX: usize = 2_048;
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

/// A URL that may be called. What its name resolves to is looked at with every call again.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn check_url(text: &str, allows_private: bool) -> Result<Url, &'static str> {
    if text.len() > URL_BYTES_MAX {
        return Err("must have at most 2048 bytes");
    }
    let url = Url::parse(text).map_err(|_| "must be a URL such as https://hooks.example.org/files")?;
    if url.scheme() != "https" && !(allows_private && url.scheme() == "http") {
        return Err("must begin with https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry a user or a password: what comes is signed");
    }
    let address = match url.host() {
        Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
        Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
        Some(Host::Domain(_)) => None,
        None => return Err("must name a host"),
    };
    match address {
        Some(address) if !allows_private && !is_public(address) => {
            Err("must not be an address of a private network")
        }
        _ => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_lead_inside_or_are_not_encrypted_are_refused() {
        for refused in [
            "hooks.example.org",
            "http://hooks.example.org",
            "ftp://hooks.example.org",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
            "https://alice:secret@hooks.example.org/",
        ] {
            assert!(check_url(refused, false).is_err(), "{refused}");
        }
        assert!(check_url("https://hooks.example.org:8443/files?x=1", false).is_ok());
        assert!(check_url("http://127.0.0.1:80/", true).is_ok());
    }
}
