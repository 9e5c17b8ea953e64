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
    /// Maximum number of open connections of one address.
    pub connections_per_address_max: usize,
    /// Time in which the header of a request must arrive, in seconds.
    pub header_read_seconds: u64,
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

    /// Returns the time in which the header of a request must arrive.
    pub fn header_read_timeout(&self) -> Duration {
        Duration::from_secs(self.header_read_seconds)
    }

    /// Returns the maximum time to produce a response.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("edge.connections_max", self.connections_max, 1..=4_096);
        let per_address = self.connections_per_address_max;
        violations.check_range("edge.connections_per_address_max", per_address, 1..=4_096);
        violations.check_range("edge.header_read_seconds", self.header_read_seconds, 1..=300);
        violations.check_range("edge.idle_timeout_seconds", self.idle_timeout_seconds, 1..=300);
        violations.check_range("edge.request_timeout_seconds", self.request_timeout_seconds, 1..=300);
    }
}
