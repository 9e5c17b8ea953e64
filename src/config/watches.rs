//! `[watches]`: change streams.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchesConfig {
    /// Interval between heartbeats, in seconds.
    pub heartbeat_seconds: u64,
    /// Maximum interval between polls for changes, in milliseconds.
    pub poll_interval_max_milliseconds: u64,
    /// Maximum number of concurrent watches in this process.
    pub streams_max: usize,
    /// Maximum number of concurrent watches of one tenant in this process.
    pub streams_per_tenant_max: usize,
}

impl WatchesConfig {
    /// Returns the interval between heartbeats.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds)
    }

    /// Returns the maximum interval between polls for changes.
    pub fn poll_interval_max(&self) -> Duration {
        Duration::from_millis(self.poll_interval_max_milliseconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("watches.heartbeat_seconds", self.heartbeat_seconds, 1..=300);
        let poll = self.poll_interval_max_milliseconds;
        violations.check_range("watches.poll_interval_max_milliseconds", poll, 20..=60_000);
        violations.check_range("watches.streams_max", self.streams_max, 1..=65_536);
        violations.check_range("watches.streams_per_tenant_max", self.streams_per_tenant_max, 1..=65_536);
    }
}
