//! `[server]`: the gRPC server and the limits of its transport.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{validation::Violations, values::empty_as_none};
use crate::domain::address_range::AddressRange;

/// The gRPC server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port; port 0 selects any free port.
    pub listen: SocketAddr,
    /// Maximum number of concurrent requests in this process.
    pub requests_max: usize,
    /// The part of these requests that only operators may use.
    pub operator_requests_reserved: usize,
    /// Maximum number of concurrent requests without credentials: health checks, health watches, reflection.
    pub anonymous_requests_max: usize,
    /// Maximum number of open connections.
    pub connections_max: usize,
    /// The part of these connections that tenants cannot use. See [`Self::connections_reserved`].
    pub operator_connections_reserved: usize,
    /// Maximum number of open connections of one address.
    pub connections_per_address_max: usize,
    /// Addresses of proxies, to which the limits per address do not apply.
    pub trusted_proxies: Vec<AddressRange>,
    /// The header to which these proxies add the address of their client.
    pub client_address_header: ClientAddressHeader,
    /// Time after which a connection without an authenticated request is closed, in seconds.
    pub unauthenticated_seconds: u64,
    /// Maximum size of a request message, in bytes.
    pub message_size_max_bytes: usize,
    /// Maximum memory of large responses that clients have not read, in bytes.
    pub unread_responses_max_bytes: usize,
    /// Time after which a large response is dropped if the client reads nothing, in seconds.
    pub response_idle_seconds: u64,
    /// Time in which a client must read a whole large response, in seconds.
    pub response_write_seconds: u64,
    /// Time after which a stream is ended if its client reads none of its messages, in seconds.
    pub stream_idle_seconds: u64,
    /// Time over which the rate of a message is measured, in seconds.
    pub message_seconds: u64,
    /// Age at which a client is asked to reconnect, in seconds; 0 disables it.
    pub connection_age_max_seconds: u64,
    /// Time that requests on such a connection may still take, in seconds.
    pub connection_age_grace_seconds: u64,
    /// Time to wait for requests in progress after SIGTERM, in seconds.
    pub drain_seconds: u64,
    /// Whether to listen without TLS beyond the loopback interface.
    pub allow_plaintext: bool,
    /// Whether to serve gRPC reflection.
    pub reflection: bool,
    /// TLS certificate and key.
    pub tls: TlsConfig,
    pub http2: Http2Config,
}

/// TLS certificate and key of the gRPC server: both or neither.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate chain.
    #[serde(deserialize_with = "empty_as_none")]
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the private key.
    #[serde(deserialize_with = "empty_as_none")]
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http2Config {
    /// Maximum number of concurrent streams on one connection.
    pub max_concurrent_streams: u32,
    /// Maximum size of a frame from the client, in bytes.
    pub frame_size_max_bytes: u32,
    /// Flow control window of a stream, in bytes.
    pub stream_window_bytes: u32,
    /// Flow control window of a connection, in bytes.
    pub connection_window_bytes: u32,
    /// Idle time after which the server sends a ping, in seconds.
    pub keepalive_interval_seconds: u64,
    /// Time to wait for the response to a ping, in seconds.
    pub keepalive_timeout_seconds: u64,
    /// Maximum size of the headers of a request, in bytes.
    pub header_list_size_max_bytes: u32,
    /// Maximum number of streams that the client resets before they are accepted.
    pub pending_accept_reset_streams_max: usize,
    /// Maximum number of streams that the server resets because of client errors.
    pub local_error_reset_streams_max: usize,
}

/// A header to which a proxy adds the address of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddressHeader {
    XForwardedFor,
    /// The header of RFC 7239.
    Forwarded,
}

impl ServerConfig {
    /// Returns the number of connections that tenants cannot use: at most half of all.
    pub fn connections_reserved(&self) -> usize {
        self.operator_connections_reserved.min(self.connections_max / 2)
    }

    /// Returns the age at which a client is asked to reconnect, or `None` if disabled.
    pub fn connection_age_max(&self) -> Option<Duration> {
        (self.connection_age_max_seconds > 0).then(|| Duration::from_secs(self.connection_age_max_seconds))
    }

    /// Returns the time that requests on such a connection may still take.
    pub fn connection_age_grace(&self) -> Duration {
        Duration::from_secs(self.connection_age_grace_seconds)
    }

    /// Returns the time after which a large response is dropped if the client reads nothing.
    pub fn response_idle_timeout(&self) -> Duration {
        Duration::from_secs(self.response_idle_seconds)
    }

    /// Returns the time in which a client must read a whole large response.
    pub fn response_write_timeout(&self) -> Duration {
        Duration::from_secs(self.response_write_seconds)
    }

    /// Returns the time after which a stream is ended if its client reads none of its messages.
    pub fn stream_idle_timeout(&self) -> Duration {
        Duration::from_secs(self.stream_idle_seconds)
    }

    /// Returns the time to wait for requests in progress after SIGTERM.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// Returns whether other machines can connect without TLS.
    pub fn is_plaintext(&self) -> bool {
        self.tls.files().is_none() && !self.listen.ip().to_canonical().is_loopback()
    }

    pub(super) fn check_for_serve(&self, violations: &mut Violations) {
        if self.is_plaintext() && !self.allow_plaintext {
            let message = format!(
                "is {}, which other machines can reach, and TLS is off: set `server.tls`, listen on 127.0.0.1, or \
                 set `server.allow_plaintext = true` if the network encrypts connections",
                self.listen
            );
            violations.add("server.listen", message);
        }
    }

    /// Returns the time after which a connection without an authenticated request is closed.
    pub fn unauthenticated_timeout(&self) -> Duration {
        Duration::from_secs(self.unauthenticated_seconds)
    }

    /// Returns the time over which the rate of a message is measured.
    pub fn message_window(&self) -> Duration {
        Duration::from_secs(self.message_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("server.requests_max", self.requests_max, 1..=65_536);
        violations.check_range(
            "server.operator_requests_reserved",
            self.operator_requests_reserved,
            0..=4_096,
        );
        if self.operator_requests_reserved * 2 > self.requests_max {
            let message = format!(
                "must be at most half of `requests_max` ({}), not {}",
                self.requests_max, self.operator_requests_reserved
            );
            violations.add("server.operator_requests_reserved", message);
        }
        violations.check_range("server.anonymous_requests_max", self.anonymous_requests_max, 1..=65_536);
        violations.check_range("server.connections_max", self.connections_max, 1..=65_536);
        let reserved = self.operator_connections_reserved;
        violations.check_range("server.operator_connections_reserved", reserved, 0..=4_096);
        let per_address = self.connections_per_address_max;
        violations.check_range("server.connections_per_address_max", per_address, 1..=65_536);
        violations.check_range("server.unauthenticated_seconds", self.unauthenticated_seconds, 1..=3_600);
        violations.check_range("server.message_seconds", self.message_seconds, 1..=3_600);
        violations.check_range(
            "server.message_size_max_bytes",
            self.message_size_max_bytes,
            65_536..=16_777_216,
        );
        let unread = self.unread_responses_max_bytes;
        violations.check_range("server.unread_responses_max_bytes", unread, 8_388_608..=17_179_869_184);
        violations.check_range("server.response_idle_seconds", self.response_idle_seconds, 1..=3_600);
        violations.check_range("server.response_write_seconds", self.response_write_seconds, 1..=3_600);
        violations.check_range("server.stream_idle_seconds", self.stream_idle_seconds, 1..=3_600);
        violations.check_range(
            "server.connection_age_max_seconds",
            self.connection_age_max_seconds,
            0..=86_400,
        );
        violations.check_range(
            "server.connection_age_grace_seconds",
            self.connection_age_grace_seconds,
            1..=86_400,
        );
        violations.check_range("server.drain_seconds", self.drain_seconds, 0..=3_600);
        if self.tls.certificate_file.is_some() != self.tls.key_file.is_some() {
            violations.add("server.tls", "must have both `certificate_file` and `key_file`, or neither");
        }
        self.http2.check(violations);
    }
}

impl TlsConfig {
    /// Returns the certificate file and the key file, or `None` for clear-text HTTP/2.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        self.certificate_file.as_deref().zip(self.key_file.as_deref())
    }
}

impl Http2Config {
    /// Returns the idle time after which the server sends a ping.
    pub fn keepalive_interval(&self) -> Duration {
        Duration::from_secs(self.keepalive_interval_seconds)
    }

    /// Returns the time to wait for the response to a ping.
    pub fn keepalive_timeout(&self) -> Duration {
        Duration::from_secs(self.keepalive_timeout_seconds)
    }

    fn check(&self, violations: &mut Violations) {
        let window = self.connection_window_bytes;
        violations.check_range(
            "server.http2.max_concurrent_streams",
            self.max_concurrent_streams,
            1..=65_536,
        );
        violations.check_range(
            "server.http2.frame_size_max_bytes",
            self.frame_size_max_bytes,
            16_384..=16_777_215,
        );
        violations.check_range(
            "server.http2.stream_window_bytes",
            self.stream_window_bytes,
            65_535..=67_108_864,
        );
        violations.check_range("server.http2.connection_window_bytes", window, 65_535..=268_435_456);
        // Otherwise streams with unread data could use up the window that other streams need to proceed.
        let minimum = self.stream_window_bytes.saturating_mul(self.max_concurrent_streams);
        if window < minimum {
            let message = format!(
                "must be at least `stream_window_bytes` times `max_concurrent_streams`, {minimum}, not \
                 {window}"
            );
            violations.add("server.http2.connection_window_bytes", message);
        }
        violations.check_range(
            "server.http2.keepalive_interval_seconds",
            self.keepalive_interval_seconds,
            1..=3_600,
        );
        violations.check_range(
            "server.http2.keepalive_timeout_seconds",
            self.keepalive_timeout_seconds,
            1..=3_600,
        );
        let headers = self.header_list_size_max_bytes;
        violations.check_range("server.http2.header_list_size_max_bytes", headers, 4_096..=1_048_576);
        let pending = self.pending_accept_reset_streams_max;
        violations.check_range("server.http2.pending_accept_reset_streams_max", pending, 1..=10_000);
        let local = self.local_error_reset_streams_max;
        violations.check_range("server.http2.local_error_reset_streams_max", local, 1..=100_000);
    }
}
