//! `[watches]`: streams of changes.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

/// Watches.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchesConfig {
    /// Seconds between two signs of life.
    pub heartbeat_seconds: u64,
    /// Between two looks for something new when there was nothing for a while, in milliseconds.
    pub poll_interval_max_milliseconds: u64,
    /// Watches at once in this process.
    pub streams_max: usize,
    /// Of these, of one tenant.
    pub streams_per_tenant_max: usize,
}

impl WatchesConfig {
    /// Between two signs of life.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds)
    }

    /// Between two looks for something new when there was nothing for a while.
    pub fn poll_interval_max(&self) -> Duration {
        Duration::from_millis(self.poll_interval_max_milliseconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("watches.heartbeat_seconds", self.heartbeat_seconds, 1..=300);
        let poll = self.poll_interval_max_milliseconds;
        violations.range("watches.poll_interval_max_milliseconds", poll, 20..=60_000);
        violations.range("watches.streams_max", self.streams_max, 1..=65_536);
        violations.range("watches.streams_per_tenant_max", self.streams_per_tenant_max, 1..=65_536);
    }
}
