//! `[deadlines]`: the deadlines of requests, by the type of their method.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

/// Request deadlines of the server. A shorter deadline of the client takes precedence. Uploads have no
/// deadline.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadlinesConfig {
    /// The deadline of requests with one response, in seconds.
    pub unary_seconds: u64,
    /// The deadline of list requests, in seconds.
    pub list_seconds: u64,
    /// The deadline of a whole download, in seconds; 0 disables it.
    pub download_seconds: u64,
}

impl DeadlinesConfig {
    /// Returns the deadline of requests with one response.
    pub fn unary(&self) -> Duration {
        Duration::from_secs(self.unary_seconds)
    }

    /// Returns the deadline of list requests.
    pub fn list(&self) -> Duration {
        Duration::from_secs(self.list_seconds)
    }

    /// Returns the deadline of a whole download, or `None` if disabled.
    pub fn download(&self) -> Option<Duration> {
        (self.download_seconds > 0).then(|| Duration::from_secs(self.download_seconds))
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("deadlines.unary_seconds", self.unary_seconds, 1..=3_600);
        violations.check_range("deadlines.list_seconds", self.list_seconds, 1..=3_600);
        violations.check_range("deadlines.download_seconds", self.download_seconds, 0..=604_800);
    }
}
