//! `[deadlines]`: how long a request may take, by the class of its method.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

/// Deadlines of the server's own; a client's shorter one wins. Uploads have none.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadlinesConfig {
    /// Requests with one answer, in seconds.
    pub unary_seconds: u64,
    /// Lists, in seconds.
    pub list_seconds: u64,
    /// Downloads, in seconds; 0 for none.
    pub download_seconds: u64,
}

impl DeadlinesConfig {
    /// The deadline of requests with one answer.
    pub fn unary(&self) -> Duration {
        Duration::from_secs(self.unary_seconds)
    }

    /// The deadline of lists.
    pub fn list(&self) -> Duration {
        Duration::from_secs(self.list_seconds)
    }

    /// The deadline of a whole download; none when only idle time ends it.
    pub fn download(&self) -> Option<Duration> {
        (self.download_seconds > 0).then(|| Duration::from_secs(self.download_seconds))
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("deadlines.unary_seconds", self.unary_seconds, 1..=3_600);
        violations.range("deadlines.list_seconds", self.list_seconds, 1..=3_600);
        violations.range("deadlines.download_seconds", self.download_seconds, 0..=604_800);
    }
}
