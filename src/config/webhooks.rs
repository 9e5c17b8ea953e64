//! `[webhooks]`: events sent to endpoints of tenants.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

/// Webhooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Whether background work delivers.
    pub enabled: bool,
    /// Whether endpoints may be in private networks, and speak plain HTTP.
    pub allow_private_addresses: bool,
    /// Endpoints of one tenant.
    pub per_tenant_max: u32,
    /// Seconds that an endpoint has to answer.
    pub timeout_seconds: u64,
    /// Attempts to deliver one event.
    pub attempts_max: u32,
    /// Seconds before the second attempt.
    pub backoff_seconds: u64,
    /// Seconds between two attempts at most.
    pub backoff_max_seconds: u64,
    /// Hours without a success after which an endpoint is disabled.
    pub disable_after_hours: u64,
}

impl WebhooksConfig {
    /// How long an endpoint has to answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// The wait after attempt number `failed`, before jitter.
    pub fn backoff(&self, failed: u32) -> Duration {
        let doubled = self.backoff_seconds.saturating_mul(1 << failed.saturating_sub(1).min(20));
        Duration::from_secs(doubled.min(self.backoff_max_seconds))
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("webhooks.per_tenant_max", self.per_tenant_max, 1..=100);
        violations.range("webhooks.timeout_seconds", self.timeout_seconds, 1..=60);
        violations.range("webhooks.attempts_max", self.attempts_max, 1..=100);
        violations.range("webhooks.backoff_seconds", self.backoff_seconds, 1..=3_600);
        violations.range("webhooks.backoff_max_seconds", self.backoff_max_seconds, 1..=86_400);
        if self.backoff_seconds > self.backoff_max_seconds {
            violations.refuse("webhooks.backoff_seconds", "must be at most `backoff_max_seconds`");
        }
        violations.range("webhooks.disable_after_hours", self.disable_after_hours, 1..=8_760);
    }
}
