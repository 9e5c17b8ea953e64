//! `[edge]`: the small HTTP port.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::validation::Violations;

/// The small HTTP port.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeConfig {
    /// Address and port; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Connections open at once.
    pub connections_max: usize,
    /// Time to send a whole request or take some of an answer, in seconds.
    pub idle_timeout_seconds: u64,
    /// Time that an answer may take, in seconds.
    pub request_timeout_seconds: u64,
}

impl EdgeConfig {
    /// Time to send a whole request or take some of an answer.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds)
    }

    /// Time that an answer may take.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("edge.connections_max", self.connections_max, 1..=4_096);
        violations.range("edge.idle_timeout_seconds", self.idle_timeout_seconds, 1..=300);
        violations.range("edge.request_timeout_seconds", self.request_timeout_seconds, 1..=300);
    }
}
