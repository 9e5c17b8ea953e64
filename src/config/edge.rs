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
    /// Whether to listen beyond the loopback interface. There is no TLS.
    pub allow_plaintext: bool,
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

    /// Returns whether other machines can connect, without TLS.
    pub fn is_plaintext(&self) -> bool {
        !self.listen.ip().to_canonical().is_loopback()
    }

    pub(super) fn check_for_serve(&self, violations: &mut Violations) {
        if self.is_plaintext() && !self.allow_plaintext {
            let message = format!(
                "is {}, which other machines can reach, and this port has no TLS: listen on 127.0.0.1, or set \
                 `edge.allow_plaintext = true` if only probes and the collector of metrics can reach it",
                self.listen
            );
            violations.add("edge.listen", message);
        }
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
