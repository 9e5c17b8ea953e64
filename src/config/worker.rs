//! `[worker]`: background work.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Maximum number of concurrent jobs in this process.
    pub jobs_max: usize,
    /// Maximum number of concurrent jobs of one tenant in all processes.
    pub tenant_jobs_max: usize,
    /// Minimum interval between polls of the job queue, in milliseconds.
    pub poll_min_milliseconds: u64,
    /// Maximum interval between polls of the job queue, in milliseconds.
    pub poll_max_milliseconds: u64,
    /// Time without a heartbeat after which the lease of a job expires, in seconds.
    pub lease_seconds: u64,
    /// Interval between heartbeats, in seconds.
    pub heartbeat_seconds: u64,
    /// Maximum number of attempts of a job.
    pub attempts_max: u32,
    /// Pause before the second attempt, in seconds.
    pub backoff_base_seconds: u64,
    /// Maximum pause between two attempts, in seconds.
    pub backoff_max_seconds: u64,
    /// Maximum pause before another attempt after a failure of a dependency, in seconds.
    pub dependency_backoff_max_seconds: u64,
    /// Interval between attempts at a parked job, in seconds.
    pub parked_retry_seconds: u64,
    /// Interval between runs of periodic work, in seconds.
    pub tick_seconds: u64,
    /// Maximum duration of a tick, in seconds.
    pub tick_deadline_seconds: u64,
    /// Maximum duration of a call of background work to a store, in seconds.
    pub store_call_seconds_max: u64,
    /// Number of consecutive failures of a store that opens its circuit breaker.
    pub breaker_failures_max: u32,
    /// Pause before an open circuit breaker probes the store, in seconds.
    pub breaker_backoff_base_seconds: u64,
    /// Maximum pause between two probes, in seconds.
    pub breaker_backoff_max_seconds: u64,
}

impl WorkerConfig {
    /// Returns the minimum interval between polls of the job queue.
    pub fn poll_min(&self) -> Duration {
        Duration::from_millis(self.poll_min_milliseconds)
    }

    /// Returns the maximum interval between polls of the job queue.
    pub fn poll_max(&self) -> Duration {
        Duration::from_millis(self.poll_max_milliseconds)
    }

    /// Returns the time without a heartbeat after which the lease of a job expires.
    pub fn lease_duration(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    /// Returns the interval between heartbeats.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds)
    }

    /// Returns the interval between runs of periodic work.
    pub fn tick_interval(&self) -> Duration {
        Duration::from_secs(self.tick_seconds)
    }

    /// Returns the interval between attempts at a parked job.
    pub fn parked_retry_interval(&self) -> Duration {
        Duration::from_secs(self.parked_retry_seconds)
    }

    /// Returns the maximum duration of a tick.
    pub fn tick_deadline(&self) -> Duration {
        Duration::from_secs(self.tick_deadline_seconds)
    }

    /// Returns the maximum duration of a call of background work to a store.
    pub fn store_call_timeout(&self) -> Duration {
        Duration::from_secs(self.store_call_seconds_max)
    }

    /// Returns the pause before an open circuit breaker probes the store.
    pub fn breaker_backoff_base(&self) -> Duration {
        Duration::from_secs(self.breaker_backoff_base_seconds)
    }

    /// Returns the maximum pause between two probes.
    pub fn breaker_backoff_max(&self) -> Duration {
        Duration::from_secs(self.breaker_backoff_max_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        self.check_queue(violations);
        self.check_attempts(violations);
        self.check_ticks(violations);
        self.check_breakers(violations);
    }

    fn check_ticks(&self, violations: &mut Violations) {
        violations.check_range("worker.tick_seconds", self.tick_seconds, 1..=3_600);
        violations.check_range("worker.tick_deadline_seconds", self.tick_deadline_seconds, 1..=86_400);
    }

    fn check_breakers(&self, violations: &mut Violations) {
        violations.check_range("worker.store_call_seconds_max", self.store_call_seconds_max, 1..=3_600);
        violations.check_range("worker.breaker_failures_max", self.breaker_failures_max, 1..=1_000);
        let (base, max) = (self.breaker_backoff_base_seconds, self.breaker_backoff_max_seconds);
        violations.check_range("worker.breaker_backoff_base_seconds", base, 1..=3_600);
        violations.check_range("worker.breaker_backoff_max_seconds", max, 1..=86_400);
        if max < base {
            violations.add(
                "worker.breaker_backoff_max_seconds",
                format!("must be at least `worker.breaker_backoff_base_seconds` ({base}), not {max}"),
            );
        }
    }

    fn check_queue(&self, violations: &mut Violations) {
        violations.check_range("worker.jobs_max", self.jobs_max, 1..=256);
        violations.check_range("worker.tenant_jobs_max", self.tenant_jobs_max, 1..=256);
        if self.tenant_jobs_max > self.jobs_max {
            violations.add(
                "worker.tenant_jobs_max",
                format!(
                    "must be at most `worker.jobs_max` ({}), not {}",
                    self.jobs_max, self.tenant_jobs_max
                ),
            );
        }
        violations.check_range("worker.poll_min_milliseconds", self.poll_min_milliseconds, 10..=60_000);
        violations.check_range("worker.poll_max_milliseconds", self.poll_max_milliseconds, 10..=60_000);
        if self.poll_max_milliseconds < self.poll_min_milliseconds {
            violations.add(
                "worker.poll_max_milliseconds",
                format!(
                    "must be at least `worker.poll_min_milliseconds` ({}), not {}",
                    self.poll_min_milliseconds, self.poll_max_milliseconds
                ),
            );
        }
        violations.check_range("worker.lease_seconds", self.lease_seconds, 3..=3_600);
        violations.check_range("worker.heartbeat_seconds", self.heartbeat_seconds, 1..=1_200);
        if self.heartbeat_seconds.saturating_mul(3) > self.lease_seconds {
            violations.add(
                "worker.heartbeat_seconds",
                format!(
                    "must be at most a third of `worker.lease_seconds` ({}), not {}",
                    self.lease_seconds, self.heartbeat_seconds
                ),
            );
        }
    }

    fn check_attempts(&self, violations: &mut Violations) {
        violations.check_range("worker.attempts_max", self.attempts_max, 1..=100);
        violations.check_range("worker.backoff_base_seconds", self.backoff_base_seconds, 1..=3_600);
        violations.check_range("worker.backoff_max_seconds", self.backoff_max_seconds, 1..=86_400);
        if self.backoff_max_seconds < self.backoff_base_seconds {
            violations.add(
                "worker.backoff_max_seconds",
                format!(
                    "must be at least `worker.backoff_base_seconds` ({}), not {}",
                    self.backoff_base_seconds, self.backoff_max_seconds
                ),
            );
        }
        let dependency_max = self.dependency_backoff_max_seconds;
        violations.check_range("worker.dependency_backoff_max_seconds", dependency_max, 1..=86_400);
        violations.check_range("worker.parked_retry_seconds", self.parked_retry_seconds, 60..=604_800);
    }
}
