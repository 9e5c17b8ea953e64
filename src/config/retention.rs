//! `[retention]`: how long things are kept.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

const HOUR_SECONDS: u64 = 3_600;

/// How long things are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// How long bytes outlive their purge, in hours.
    pub undelete_window_hours: u64,
    /// How long the record of a purged file stays, in days.
    pub tombstone_days: u64,
    /// How long events are kept, in days.
    pub event_days: u64,
    /// How long the answer to a request id is remembered, in hours.
    pub idempotency_hours: u64,
    /// How long it is known what became of a job, in days.
    pub finished_job_days: u64,
}

impl RetentionConfig {
    /// How long bytes outlive their purge.
    pub fn undelete_window(&self) -> Duration {
        Duration::from_secs(self.undelete_window_hours.saturating_mul(HOUR_SECONDS))
    }

    /// How long the record of a purged file stays.
    pub fn tombstone(&self) -> Duration {
        Duration::from_secs(self.tombstone_days.saturating_mul(24 * HOUR_SECONDS))
    }

    /// How long the answer to a request id is remembered.
    pub fn idempotency(&self) -> Duration {
        Duration::from_secs(self.idempotency_hours.saturating_mul(HOUR_SECONDS))
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("retention.undelete_window_hours", self.undelete_window_hours, 0..=8_760);
        violations.range("retention.tombstone_days", self.tombstone_days, 1..=3_650);
        violations.range("retention.event_days", self.event_days, 2..=3_650);
        violations.range("retention.idempotency_hours", self.idempotency_hours, 1..=168);
        violations.range("retention.finished_job_days", self.finished_job_days, 1..=365);
    }
}
