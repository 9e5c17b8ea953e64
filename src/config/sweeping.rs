//! `[sweeping]`: finds and deletes objects without a row, which a crash can leave in a store.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepingConfig {
    /// Whether background work sweeps.
    pub enabled: bool,
    /// The age at which an object without a row is detected, and the further time until it is deleted, in
    /// seconds.
    pub grace_seconds: u64,
    /// Interval between rounds, in seconds.
    pub interval_seconds: u64,
    /// Interval between rounds that examine all objects, in seconds.
    pub full_walk_interval_seconds: u64,
    /// Maximum number of objects that are examined at a time.
    pub batch_max: usize,
    /// Maximum number of stores that this process sweeps at a time.
    pub stores_max: usize,
    /// Maximum duration of the sweep of one store, in seconds.
    pub deadline_seconds: u64,
}

impl SweepingConfig {
    /// Returns the age at which an object without a row is detected, and the further time until it is
    /// deleted.
    pub fn grace_period(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    /// Returns the maximum duration of the sweep of one store.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    /// Returns the age at which an object without a row should have been deleted: it is detected by the first
    /// full walk after its grace period, and deleted in the first round after another grace period.
    pub fn overdue_age(&self) -> Duration {
        let waits = self.grace_seconds.saturating_mul(2);
        let rounds = self.full_walk_interval_seconds.saturating_add(self.interval_seconds.saturating_mul(2));
        Duration::from_secs(waits.saturating_add(rounds))
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("sweeping.grace_seconds", self.grace_seconds, 3_600..=2_592_000);
        violations.check_range("sweeping.interval_seconds", self.interval_seconds, 60..=86_400);
        let full = self.full_walk_interval_seconds;
        violations.check_range("sweeping.full_walk_interval_seconds", full, 60..=2_592_000);
        violations.check_range("sweeping.batch_max", self.batch_max, 1..=1_000);
        violations.check_range("sweeping.stores_max", self.stores_max, 1..=16);
        violations.check_range("sweeping.deadline_seconds", self.deadline_seconds, 60..=2_592_000);
    }
}
