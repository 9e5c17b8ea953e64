//! `[worker]`: background work.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

/// Background work.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Jobs that this process works on at once.
    pub jobs_max: usize,
    /// Jobs of one tenant that run at once, over all processes.
    pub tenant_jobs_max: usize,
    /// The shortest pause between two looks at the queue, in milliseconds.
    pub poll_min_milliseconds: u64,
    /// The longest pause, in milliseconds.
    pub poll_max_milliseconds: u64,
    /// How long a job stays with a process that sends no heartbeat, in seconds.
    pub lease_seconds: u64,
    /// Between two heartbeats, in seconds.
    pub heartbeat_seconds: u64,
    /// How often a job is tried in all.
    pub attempts_max: u32,
    /// Before the second attempt, in seconds.
    pub backoff_base_seconds: u64,
    /// The longest pause between two attempts, in seconds.
    pub backoff_max_seconds: u64,
    /// Between two ticks of what is done by the clock, in seconds.
    pub tick_seconds: u64,
}

impl WorkerConfig {
    /// The shortest pause between two looks at the queue.
    pub fn poll_min(&self) -> Duration {
        Duration::from_millis(self.poll_min_milliseconds)
    }

    /// The longest pause between two looks at the queue.
    pub fn poll_max(&self) -> Duration {
        Duration::from_millis(self.poll_max_milliseconds)
    }

    /// How long a job stays with a process that sends no heartbeat.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// Between two heartbeats.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds)
    }

    /// Between two ticks of what is done by the clock.
    pub fn tick(&self) -> Duration {
        Duration::from_secs(self.tick_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("worker.jobs_max", self.jobs_max, 1..=256);
        violations.range("worker.tenant_jobs_max", self.tenant_jobs_max, 1..=256);
        if self.tenant_jobs_max > self.jobs_max {
            violations.refuse("worker.tenant_jobs_max", "must be at most `worker.jobs_max`");
        }
        violations.range("worker.poll_min_milliseconds", self.poll_min_milliseconds, 10..=60_000);
        violations.range("worker.poll_max_milliseconds", self.poll_max_milliseconds, 10..=60_000);
        if self.poll_max_milliseconds < self.poll_min_milliseconds {
            violations
                .refuse("worker.poll_max_milliseconds", "must be at least `worker.poll_min_milliseconds`");
        }
        violations.range("worker.lease_seconds", self.lease_seconds, 3..=3_600);
        violations.range("worker.heartbeat_seconds", self.heartbeat_seconds, 1..=1_200);
        if self.heartbeat_seconds.saturating_mul(3) > self.lease_seconds {
            violations
                .refuse("worker.heartbeat_seconds", "must be at most a third of `worker.lease_seconds`");
        }
        violations.range("worker.attempts_max", self.attempts_max, 1..=100);
        violations.range("worker.backoff_base_seconds", self.backoff_base_seconds, 1..=3_600);
        violations.range("worker.backoff_max_seconds", self.backoff_max_seconds, 1..=86_400);
        if self.backoff_max_seconds < self.backoff_base_seconds {
            violations.refuse("worker.backoff_max_seconds", "must be at least `worker.backoff_base_seconds`");
        }
        violations.range("worker.tick_seconds", self.tick_seconds, 1..=3_600);
    }
}
