//! `[edge]`: the HTTP server for probes and metrics.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::validation::Violations;

/// The HTTP server for probes and metrics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeConfig {
    /// Address and port; port 0 selects any free port.
    pub listen: SocketAddr,
    /// Maximum number of open connections.
    pub connections_max: usize,
    /// Time to send a whole request, or to read some of a response, in seconds.
    pub idle_timeout_seconds: u64,
    /// Maximum time to produce a response, in seconds.
    pub request_timeout_seconds: u64,
}

impl EdgeConfig {
    /// Returns the time to send a whole request, or to read some of a response.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds)
    }

    /// Returns the maximum time to produce a response.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("edge.connections_max", self.connections_max, 1..=4_096);
        violations.check_range("edge.idle_timeout_seconds", self.idle_timeout_seconds, 1..=300);
        violations.check_range("edge.request_timeout_seconds", self.request_timeout_seconds, 1..=300);
    }
}
