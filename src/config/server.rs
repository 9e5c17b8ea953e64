//! `[server]`: the gRPC door and the limits of its transport.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{validation::Violations, values::none_if_empty};

/// The gRPC door.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Requests worked on at once in this process.
    pub requests_max: usize,
    /// Connections open at once.
    pub connections_max: usize,
    /// The largest message that is decoded, in bytes.
    pub message_size_max_bytes: usize,
    /// Age at which a connection is asked to close, in seconds; 0 for never.
    pub connection_age_max_seconds: u64,
    /// How long requests on such a connection may still run, in seconds.
    pub connection_age_grace_seconds: u64,
    /// How long SIGTERM waits for work in flight, in seconds.
    pub drain_seconds: u64,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// Certificate and key.
    pub tls: TlsConfig,
    /// The limits of HTTP/2.
    pub http2: Http2Config,
}

/// Certificate and key of the gRPC door: both or neither.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate chain.
    #[serde(deserialize_with = "none_if_empty")]
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the private key.
    #[serde(deserialize_with = "none_if_empty")]
    pub key_file: Option<PathBuf>,
}

/// The limits of HTTP/2.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http2Config {
    /// Streams open at once on one connection.
    pub max_concurrent_streams: u32,
    /// The largest frame that a client may send, in bytes.
    pub frame_size_max_bytes: u32,
    /// Flow control window of a stream, in bytes.
    pub stream_window_bytes: u32,
    /// Flow control window of a connection, in bytes.
    pub connection_window_bytes: u32,
    /// Silence after which a connection is pinged, in seconds.
    pub keepalive_interval_seconds: u64,
    /// Wait for the answer to a ping, in seconds.
    pub keepalive_timeout_seconds: u64,
    /// The largest header list, in bytes.
    pub header_list_size_max_bytes: u32,
    /// Streams reset by the client before they were accepted.
    pub pending_accept_reset_streams_max: usize,
    /// Streams reset by this side because of the client's mistakes.
    pub local_error_reset_streams_max: usize,
}

impl ServerConfig {
    /// The age at which a connection is asked to close; none for never.
    pub fn connection_age_max(&self) -> Option<Duration> {
        (self.connection_age_max_seconds > 0).then(|| Duration::from_secs(self.connection_age_max_seconds))
    }

    /// How long requests on such a connection may still run.
    pub fn connection_age_grace(&self) -> Duration {
        Duration::from_secs(self.connection_age_grace_seconds)
    }

    /// How long SIGTERM waits for work in flight.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("server.requests_max", self.requests_max, 1..=65_536);
        violations.range("server.connections_max", self.connections_max, 1..=65_536);
        violations.range("server.message_size_max_bytes", self.message_size_max_bytes, 65_536..=16_777_216);
        violations.range("server.connection_age_max_seconds", self.connection_age_max_seconds, 0..=86_400);
        violations.range(
            "server.connection_age_grace_seconds",
            self.connection_age_grace_seconds,
            1..=86_400,
        );
        violations.range("server.drain_seconds", self.drain_seconds, 0..=3_600);
        if self.tls.certificate_file.is_some() != self.tls.key_file.is_some() {
            violations.refuse("server.tls", "needs both certificate_file and key_file, or neither");
        }
        self.http2.check(violations);
    }
}

impl TlsConfig {
    /// Certificate and key; none when the door speaks clear text.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        self.certificate_file.as_deref().zip(self.key_file.as_deref())
    }
}

impl Http2Config {
    /// Silence after which a connection is pinged.
    pub fn keepalive_interval(&self) -> Duration {
        Duration::from_secs(self.keepalive_interval_seconds)
    }

    /// Wait for the answer to a ping.
    pub fn keepalive_timeout(&self) -> Duration {
        Duration::from_secs(self.keepalive_timeout_seconds)
    }

    fn check(&self, violations: &mut Violations) {
        let window = self.connection_window_bytes;
        violations.range("server.http2.max_concurrent_streams", self.max_concurrent_streams, 1..=65_536);
        violations.range("server.http2.frame_size_max_bytes", self.frame_size_max_bytes, 16_384..=16_777_215);
        violations.range("server.http2.stream_window_bytes", self.stream_window_bytes, 65_535..=67_108_864);
        violations.range("server.http2.connection_window_bytes", window, 65_535..=268_435_456);
        // Or streams that wait, unread, would take the window from those that they wait for.
        if window < self.stream_window_bytes.saturating_mul(self.max_concurrent_streams) {
            let message = "must be at least `stream_window_bytes` times `max_concurrent_streams`";
            violations.refuse("server.http2.connection_window_bytes", message);
        }
        violations.range(
            "server.http2.keepalive_interval_seconds",
            self.keepalive_interval_seconds,
            1..=3_600,
        );
        violations.range("server.http2.keepalive_timeout_seconds", self.keepalive_timeout_seconds, 1..=3_600);
        let headers = self.header_list_size_max_bytes;
        violations.range("server.http2.header_list_size_max_bytes", headers, 4_096..=1_048_576);
        let pending = self.pending_accept_reset_streams_max;
        violations.range("server.http2.pending_accept_reset_streams_max", pending, 1..=10_000);
        let local = self.local_error_reset_streams_max;
        violations.range("server.http2.local_error_reset_streams_max", local, 1..=100_000);
    }
}
