//! `[uploads]`: how bytes come in, and what bounds them.

use std::time::Duration;

use serde::Deserialize;

use super::{ServerConfig, validation::Violations};

/// Room in a message for the fields around a chunk's data: offset, checksum, tags and lengths.
const CHUNK_OVERHEAD_BYTES: usize = 1_024;

/// Uploads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadsConfig {
    /// Parts that a file is written in, in bytes.
    pub part_size_bytes: usize,
    /// Parts of one upload written at the same time.
    pub parts_in_flight_max: usize,
    /// Buffers of all uploads of this process, in bytes.
    pub byte_budget_bytes: usize,
    /// The most data in one chunk, in bytes.
    pub chunk_size_max_bytes: usize,
    /// Silence that ends an upload, in seconds.
    pub idle_timeout_seconds: u64,
    /// The slowest average rate, in bytes per second; 0 for any.
    pub rate_min_bytes_per_second: u64,
    /// How long the rate is not looked at, in seconds.
    pub rate_grace_seconds: u64,
    /// Steps in which an upload of unknown size reserves quota, in bytes.
    pub reservation_step_bytes: u64,
    /// How long a reservation outlives the last byte, in seconds.
    pub lease_seconds: u64,
    /// Uploads of one tenant committed in one transaction.
    pub commit_batch_max: usize,
    /// Connections that commit the uploads of one tenant.
    pub commit_connections_max: usize,
    /// Bytes thrown away before an upload is refused in mid-stream.
    pub drain_bytes_max: usize,
    /// How long the URLs of a direct upload live, in seconds.
    pub direct_url_seconds: u64,
    /// The largest direct upload of one piece, in bytes; larger ones go in parts of at least this size.
    pub direct_put_max_bytes: u64,
    /// Messages decoded at the same time, and chunks that may wait for room.
    pub decode_permits: usize,
}

impl UploadsConfig {
    /// Silence that ends an upload.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds)
    }

    /// How long the rate of an upload is not looked at.
    pub fn rate_grace(&self) -> Duration {
        Duration::from_secs(self.rate_grace_seconds)
    }

    /// How long a reservation outlives the last byte.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// How long the URLs of a direct upload live.
    pub fn direct_urls_live(&self) -> Duration {
        Duration::from_secs(self.direct_url_seconds)
    }

    /// The largest message that carries a whole part, in bytes.
    pub fn part_message_bytes_max(&self) -> usize {
        self.part_size_bytes.saturating_add(CHUNK_OVERHEAD_BYTES)
    }

    /// What uploads may have in hand while they wait for room, in bytes.
    pub fn waiting_bytes_max(&self) -> usize {
        self.decode_permits.saturating_mul(self.chunk_size_max_bytes)
    }

    pub(super) fn check(&self, violations: &mut Violations, server: &ServerConfig) {
        violations.range("uploads.part_size_bytes", self.part_size_bytes, 5_242_880..=67_108_864);
        violations.range("uploads.parts_in_flight_max", self.parts_in_flight_max, 1..=32);
        violations.range("uploads.byte_budget_bytes", self.byte_budget_bytes, 5_242_880..=68_719_476_736);
        if self.byte_budget_bytes < self.part_size_bytes {
            violations.refuse("uploads.byte_budget_bytes", "must be at least one part (`part_size_bytes`)");
        }
        violations.range("uploads.chunk_size_max_bytes", self.chunk_size_max_bytes, 65_536..=2_097_152);
        if server.message_size_max_bytes < self.chunk_size_max_bytes.saturating_add(CHUNK_OVERHEAD_BYTES) {
            let message = format!("must be at least `uploads.chunk_size_max_bytes` + {CHUNK_OVERHEAD_BYTES}");
            violations.refuse("server.message_size_max_bytes", message);
        }
        violations.range("uploads.idle_timeout_seconds", self.idle_timeout_seconds, 1..=3_600);
        let rate = self.rate_min_bytes_per_second;
        violations.range("uploads.rate_min_bytes_per_second", rate, 0..=1_073_741_824);
        violations.range("uploads.rate_grace_seconds", self.rate_grace_seconds, 1..=3_600);
        let step = self.reservation_step_bytes;
        violations.range("uploads.reservation_step_bytes", step, 1_048_576..=1_073_741_824);
        violations.range("uploads.lease_seconds", self.lease_seconds, 10..=604_800);
        if self.lease_seconds <= self.idle_timeout_seconds {
            violations.refuse("uploads.lease_seconds", "must be more than `idle_timeout_seconds`");
        }
        violations.range("uploads.commit_batch_max", self.commit_batch_max, 1..=1_024);
        violations.range("uploads.commit_connections_max", self.commit_connections_max, 1..=16);
        violations.range("uploads.drain_bytes_max", self.drain_bytes_max, 0..=67_108_864);
        violations.range("uploads.direct_url_seconds", self.direct_url_seconds, 1..=604_800);
        let put = self.direct_put_max_bytes;
        violations.range("uploads.direct_put_max_bytes", put, 5_242_880..=5_368_709_120);
        violations.range("uploads.decode_permits", self.decode_permits, 1..=4_096);
    }
}
