//! `[downloads]`: how bytes go out.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

/// Downloads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DownloadsConfig {
    /// Data in one chunk, in bytes.
    pub chunk_size_bytes: usize,
    /// Downloads at once in this process.
    pub streams_max: usize,
    /// Chunks of one download read ahead of the client.
    pub chunks_in_flight_max: usize,
    /// Time in which a client takes nothing before its download ends, in seconds.
    pub idle_timeout_seconds: u64,
}

impl DownloadsConfig {
    /// Time in which a client takes nothing before its download ends.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("downloads.chunk_size_bytes", self.chunk_size_bytes, 262_144..=1_048_576);
        violations.range("downloads.streams_max", self.streams_max, 1..=65_536);
        violations.range("downloads.chunks_in_flight_max", self.chunks_in_flight_max, 1..=16);
        violations.range("downloads.idle_timeout_seconds", self.idle_timeout_seconds, 1..=3_600);
    }
}
