//! `[downloads]`: limits of downloads.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DownloadsConfig {
    /// Data in one chunk, in bytes.
    pub chunk_size_bytes: usize,
    /// Maximum number of concurrent downloads in this process.
    pub streams_max: usize,
    /// Maximum number of chunks of one download that are read ahead of the client.
    pub chunks_in_flight_max: usize,
    /// Maximum number of block checksums that one download holds at a time.
    pub block_checksums_max: usize,
    /// Time without progress of the client after which a download is ended, in seconds.
    pub idle_timeout_seconds: u64,
}

impl DownloadsConfig {
    /// Returns the time without progress of the client after which a download is ended.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("downloads.chunk_size_bytes", self.chunk_size_bytes, 262_144..=1_048_576);
        violations.check_range("downloads.streams_max", self.streams_max, 1..=65_536);
        violations.check_range("downloads.chunks_in_flight_max", self.chunks_in_flight_max, 1..=16);
        violations.check_range("downloads.block_checksums_max", self.block_checksums_max, 1..=8_192);
        violations.check_range("downloads.idle_timeout_seconds", self.idle_timeout_seconds, 1..=3_600);
    }
}
