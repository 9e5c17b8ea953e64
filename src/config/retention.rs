//! `[retention]`: retention periods.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

const HOUR_SECONDS: u64 = 3_600;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Time between the purge of a file and the deletion of its bytes, in hours.
    pub blob_deletion_delay_hours: u64,
    /// Time that the record of a purged file is kept, in days.
    pub tombstone_days: u64,
    /// Time that events are kept, in days.
    pub event_days: u64,
    /// Time that audit entries are kept, in days.
    pub audit_days: u64,
    /// Time that entries of the access log are kept, in days.
    pub access_log_days: u64,
    /// Time that the response to a request id is kept, in hours.
    pub idempotency_hours: u64,
    /// Time in which an erasure must be approved, and then used, in days.
    pub erasure_days: u64,
    /// Time that finished jobs are kept, in days.
    pub finished_job_days: u64,
}

impl RetentionConfig {
    /// Returns the time between the purge of a file and the deletion of its bytes.
    pub fn blob_deletion_delay(&self) -> Duration {
        Duration::from_secs(self.blob_deletion_delay_hours.saturating_mul(HOUR_SECONDS))
    }

    /// Returns the time that the record of a purged file is kept.
    pub fn tombstone_retention(&self) -> Duration {
        Duration::from_secs(self.tombstone_days.saturating_mul(24 * HOUR_SECONDS))
    }

    /// Returns the time that the response to a request id is kept.
    pub fn idempotency_retention(&self) -> Duration {
        Duration::from_secs(self.idempotency_hours.saturating_mul(HOUR_SECONDS))
    }

    /// Returns the time that events are kept.
    pub fn event_retention(&self) -> Duration {
        Duration::from_secs(self.event_days.saturating_mul(24 * HOUR_SECONDS))
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range(
            "retention.blob_deletion_delay_hours",
            self.blob_deletion_delay_hours,
            0..=8_760,
        );
        violations.check_range("retention.tombstone_days", self.tombstone_days, 1..=3_650);
        violations.check_range("retention.event_days", self.event_days, 2..=3_650);
        violations.check_range("retention.audit_days", self.audit_days, 30..=36_500);
        violations.check_range("retention.access_log_days", self.access_log_days, 1..=36_500);
        violations.check_range("retention.idempotency_hours", self.idempotency_hours, 1..=168);
        violations.check_range("retention.erasure_days", self.erasure_days, 1..=30);
        violations.check_range("retention.finished_job_days", self.finished_job_days, 1..=365);
    }
}
