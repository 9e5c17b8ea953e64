//! `[webhooks]`: events sent to endpoints of tenants.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Whether background work delivers events.
    pub enabled: bool,
    /// Whether endpoints may be in private networks and use plain HTTP.
    pub allow_private_addresses: bool,
    /// Maximum number of endpoints of one tenant.
    pub per_tenant_max: u32,
    /// Time in which an endpoint must respond, in seconds.
    pub timeout_seconds: u64,
    /// Maximum number of attempts to deliver one event.
    pub attempts_max: u32,
    /// Pause before the second attempt, in seconds.
    pub backoff_seconds: u64,
    /// Maximum pause between two attempts, in seconds.
    pub backoff_max_seconds: u64,
    /// Longest pause that an endpoint can ask for, in seconds.
    pub retry_after_max_seconds: u64,
    /// Time for which deliveries must have failed before an endpoint is disabled, in hours.
    pub disable_after_hours: u64,
}

impl WebhooksConfig {
    /// Returns the time in which an endpoint must respond.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// Returns the pause after failed attempt number `failed`, before jitter.
    pub fn backoff_after(&self, failed: u32) -> Duration {
        let doubled = self.backoff_seconds.saturating_mul(1 << failed.saturating_sub(1).min(20));
        Duration::from_secs(doubled.min(self.backoff_max_seconds))
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("webhooks.per_tenant_max", self.per_tenant_max, 1..=100);
        violations.check_range("webhooks.timeout_seconds", self.timeout_seconds, 1..=60);
        violations.check_range("webhooks.attempts_max", self.attempts_max, 1..=100);
        violations.check_range("webhooks.backoff_seconds", self.backoff_seconds, 1..=3_600);
        violations.check_range("webhooks.backoff_max_seconds", self.backoff_max_seconds, 1..=86_400);
        violations.check_range("webhooks.retry_after_max_seconds", self.retry_after_max_seconds, 1..=86_400);
        if self.backoff_seconds > self.backoff_max_seconds {
            violations.add(
                "webhooks.backoff_seconds",
                format!(
                    "must be at most `backoff_max_seconds` ({}), not {}",
                    self.backoff_max_seconds, self.backoff_seconds
                ),
            );
        }
        violations.check_range("webhooks.disable_after_hours", self.disable_after_hours, 1..=8_760);
    }
}
