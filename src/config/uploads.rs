//! `[uploads]`: limits of uploads.

use std::time::Duration;

use serde::Deserialize;

use super::{ServerConfig, validation::Violations};

/// The space in a message for the fields in addition to the data of a chunk: offset, checksum, tags and
/// lengths.
const CHUNK_OVERHEAD_BYTES: usize = 1_024;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadsConfig {
    /// Size of the parts in which a file is written, in bytes.
    pub part_size_bytes: usize,
    /// Number of parts of an upload stream before the first larger one.
    pub equal_parts_max: u32,
    /// Maximum number of parts of one upload that are written concurrently.
    pub parts_in_flight_max: usize,
    /// Maximum number of concurrent upload streams in this process.
    pub streams_max: usize,
    /// Time until the first message of an upload, in seconds, unless it arrives at the minimum rate.
    pub first_message_seconds: u64,
    /// Total size of the buffers of all uploads in this process, in bytes.
    pub byte_budget_bytes: usize,
    /// Maximum data in one chunk, in bytes.
    pub chunk_size_max_bytes: usize,
    /// Time without any byte after which an upload is ended, in seconds.
    pub idle_timeout_seconds: u64,
    /// Minimum average rate, in bytes per second; 0 disables it.
    pub rate_min_bytes_per_second: u64,
    /// Time over which the rate of an upload is measured, in seconds.
    pub rate_grace_seconds: u64,
    /// Step size of the quota reservation of an upload of unknown size, in bytes.
    pub reservation_step_bytes: u64,
    /// Time that a reservation stays valid after the last data, in seconds.
    pub lease_seconds: u64,
    /// Maximum number of open uploads that one caller created.
    pub open_per_caller_max: u32,
    /// Maximum number of open uploads of one tenant.
    pub open_per_tenant_max: u32,
    /// Maximum number of versions of one file.
    pub versions_per_file_max: u32,
    /// Maximum number of uploads of one tenant that are committed in one transaction.
    pub commit_batch_max: usize,
    /// Maximum number of connections that commit the uploads of one tenant.
    pub commit_connections_max: usize,
    /// Maximum number of bytes that are discarded before an upload is rejected in mid-stream.
    pub drain_bytes_max: usize,
    /// Lifetime of the URLs of a direct upload, in seconds.
    pub direct_url_seconds: u64,
    /// Maximum size of a direct upload in one request, in bytes. Larger ones are sent in parts of at least
    /// this size.
    pub direct_put_max_bytes: u64,
    /// Maximum number of messages that are decoded concurrently, and of chunks that wait for a buffer.
    pub decode_permits: usize,
}

impl UploadsConfig {
    /// Returns the time without any byte after which an upload is ended.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds)
    }

    /// Returns the time until the first message of an upload.
    pub fn first_message_timeout(&self) -> Duration {
        Duration::from_secs(self.first_message_seconds)
    }

    /// Returns the time over which the rate of an upload is measured.
    pub fn rate_grace(&self) -> Duration {
        Duration::from_secs(self.rate_grace_seconds)
    }

    /// Returns the time that a reservation stays valid after the last data.
    pub fn lease_duration(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// Returns the lifetime of the URLs of a direct upload.
    pub fn direct_url_lifetime(&self) -> Duration {
        Duration::from_secs(self.direct_url_seconds)
    }

    /// Returns the maximum size of a message that contains a whole part, in bytes.
    pub fn part_message_bytes_max(&self) -> usize {
        self.part_size_bytes.saturating_add(CHUNK_OVERHEAD_BYTES)
    }

    /// Returns the maximum data that all uploads hold while they wait for a buffer, in bytes. One caller may hold
    /// nine sixteenths of it: as many of the largest chunks as can be received at the same time.
    pub fn waiting_bytes_max(&self) -> usize {
        self.decode_permits.saturating_mul(self.chunk_size_max_bytes).saturating_mul(16).div_ceil(9)
    }

    pub(super) fn check(&self, violations: &mut Violations, server: &ServerConfig) {
        violations.check_range("uploads.part_size_bytes", self.part_size_bytes, 5_242_880..=67_108_864);
        violations.check_range("uploads.equal_parts_max", self.equal_parts_max, 1..=7_000);
        violations.check_range("uploads.streams_max", self.streams_max, 1..=65_536);
        violations.check_range("uploads.first_message_seconds", self.first_message_seconds, 1..=3_600);
        violations.check_range("uploads.parts_in_flight_max", self.parts_in_flight_max, 1..=32);
        violations.check_range(
            "uploads.byte_budget_bytes",
            self.byte_budget_bytes,
            5_242_880..=68_719_476_736,
        );
        if self.byte_budget_bytes < self.part_size_bytes {
            violations.add(
                "uploads.byte_budget_bytes",
                format!(
                    "must be at least `part_size_bytes` ({}), not {}",
                    self.part_size_bytes, self.byte_budget_bytes
                ),
            );
        }
        violations.check_range("uploads.chunk_size_max_bytes", self.chunk_size_max_bytes, 65_536..=2_097_152);
        if server.message_size_max_bytes < self.chunk_size_max_bytes.saturating_add(CHUNK_OVERHEAD_BYTES) {
            let message = format!(
                "must be at least `uploads.chunk_size_max_bytes` + {CHUNK_OVERHEAD_BYTES}, not {}",
                server.message_size_max_bytes
            );
            violations.add("server.message_size_max_bytes", message);
        }
        violations.check_range("uploads.idle_timeout_seconds", self.idle_timeout_seconds, 1..=3_600);
        let rate = self.rate_min_bytes_per_second;
        violations.check_range("uploads.rate_min_bytes_per_second", rate, 0..=1_073_741_824);
        violations.check_range("uploads.rate_grace_seconds", self.rate_grace_seconds, 1..=3_600);
        let step = self.reservation_step_bytes;
        violations.check_range("uploads.reservation_step_bytes", step, 1_048_576..=1_073_741_824);
        violations.check_range("uploads.lease_seconds", self.lease_seconds, 10..=604_800);
        if self.lease_seconds <= self.idle_timeout_seconds {
            violations.add(
                "uploads.lease_seconds",
                format!(
                    "must be more than `idle_timeout_seconds` ({}), not {}",
                    self.idle_timeout_seconds, self.lease_seconds
                ),
            );
        }
        violations.check_range("uploads.open_per_caller_max", self.open_per_caller_max, 1..=10_000);
        violations.check_range("uploads.open_per_tenant_max", self.open_per_tenant_max, 1..=100_000);
        violations.check_range("uploads.versions_per_file_max", self.versions_per_file_max, 1..=100_000);
        violations.check_range("uploads.commit_batch_max", self.commit_batch_max, 1..=1_024);
        violations.check_range("uploads.commit_connections_max", self.commit_connections_max, 1..=16);
        violations.check_range("uploads.drain_bytes_max", self.drain_bytes_max, 0..=67_108_864);
        violations.check_range("uploads.direct_url_seconds", self.direct_url_seconds, 1..=604_800);
        let put = self.direct_put_max_bytes;
        violations.check_range("uploads.direct_put_max_bytes", put, 5_242_880..=5_368_709_120);
        violations.check_range("uploads.decode_permits", self.decode_permits, 1..=4_096);
    }
}
