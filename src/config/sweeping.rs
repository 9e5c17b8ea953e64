//! `[sweeping]`: what removes what crashes left in the stores.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

/// Sweeping.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepingConfig {
    /// Whether background work sweeps.
    pub enabled: bool,
    /// How old something without a row must be to be found, and how long it waits to be removed, in seconds.
    pub grace_seconds: u64,
    /// Between two rounds, in seconds.
    pub interval_seconds: u64,
    /// Between two rounds that walk through everything, in seconds.
    pub full_walk_interval_seconds: u64,
    /// Objects that are looked at in one go.
    pub batch_max: usize,
}

impl SweepingConfig {
    /// How old something without a row must be to be found, and how long it waits to be removed.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    /// The age at which something without a row is one that sweeping failed to remove: found in the first full walk after
    /// its grace period, removed in the first round after another.
    pub fn overdue(&self) -> Duration {
        let waits = self.grace_seconds.saturating_mul(2);
        let rounds = self.full_walk_interval_seconds.saturating_add(self.interval_seconds.saturating_mul(2));
        Duration::from_secs(waits.saturating_add(rounds))
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("sweeping.grace_seconds", self.grace_seconds, 3_600..=2_592_000);
        violations.range("sweeping.interval_seconds", self.interval_seconds, 60..=86_400);
        let full = self.full_walk_interval_seconds;
        violations.range("sweeping.full_walk_interval_seconds", full, 60..=2_592_000);
        violations.range("sweeping.batch_max", self.batch_max, 1..=1_000);
    }
}
