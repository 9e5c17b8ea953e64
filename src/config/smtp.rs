//! `[smtp]`: the mail server for alerts.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::{
    validation::Violations,
    values::{empty_as_none, empty_secret_as_none},
};
use crate::domain::email::check_address;

/// The mail server. Without a host, no e-mail is sent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// Host name of the server. Empty if there is none.
    pub host: String,
    pub port: u16,
    pub starttls: StartTls,
    /// User name. Empty for a server without authentication.
    pub username: String,
    #[serde(deserialize_with = "empty_secret_as_none")]
    pub password: Option<SecretString>,
    /// Address of the sender.
    pub from: String,
    /// Time in which one e-mail must be accepted, in seconds.
    pub timeout_seconds: u64,
    /// PEM file with certificates of authorities that are trusted in addition to those of the system.
    #[serde(deserialize_with = "empty_as_none")]
    pub ca_file: Option<PathBuf>,
}

/// Whether the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartTls {
    /// Nothing is sent without encryption.
    Required,
    /// Encrypted if the server offers it.
    Opportunistic,
    /// Everything is sent without encryption.
    None,
}

impl SmtpConfig {
    /// Returns whether e-mails can be sent.
    pub fn is_configured(&self) -> bool {
        !self.host.is_empty()
    }

    /// Returns the time in which one e-mail must be accepted.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("smtp.timeout_seconds", self.timeout_seconds, 1..=120);
        if !self.is_configured() {
            return;
        }
        if self.port == 0 {
            violations.add("smtp.port", "must not be 0".to_owned());
        }
        if let Err(problem) = check_address(&self.from) {
            violations.add("smtp.from", format!("{problem}, because `smtp.host` is set"));
        }
        if self.username.is_empty() != self.password.is_none() {
            violations.add("smtp.password", "must be set together with `smtp.username`".to_owned());
        }
        if self.starttls != StartTls::Required && self.password.is_some() {
            let problem = "must be `required` with a password, which would be sent without encryption";
            violations.add("smtp.starttls", problem.to_owned());
        }
    }
}
