//! `[rate_limits]`: requests and refusals per second.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;

/// The maximum number of requests, and of refusals, per second that can be configured.
const PER_SECOND_MAX: u32 = 1_000_000;

/// Limits of requests and refusals per second, in this process. 0 means no limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitsConfig {
    /// Maximum number of requests of one caller per second.
    pub caller_requests_per_second: u32,
    /// Maximum number of requests of one tenant per second.
    pub tenant_requests_per_second: u32,
    /// Maximum number of requests from one address per second.
    pub address_requests_per_second: u32,
    /// Maximum number of requests of visitors of shares from one address per second.
    pub visitor_requests_per_second: u32,
    /// Maximum number of requests of all visitors of one share per second.
    pub share_requests_per_second: u32,
    /// Maximum number of refused calls of one caller per second.
    pub caller_refusals_per_second: u32,
    /// Maximum number of refused calls of one tenant per second.
    pub tenant_refusals_per_second: u32,
    /// Maximum number of calls with invalid credentials from one address per second.
    pub address_refusals_per_second: u32,
    /// Size of a burst: the time, in seconds, whose requests or refusals may arrive at once.
    pub burst_seconds: u64,
    /// Interval at which refusals above these rates are audited, in seconds.
    pub refusal_audit_seconds: u64,
}

impl RateLimitsConfig {
    /// Returns the interval at which refusals above the rates are audited.
    pub fn refusal_audit_interval(&self) -> Duration {
        Duration::from_secs(self.refusal_audit_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        for (key, value) in [
            ("rate_limits.caller_requests_per_second", self.caller_requests_per_second),
            ("rate_limits.tenant_requests_per_second", self.tenant_requests_per_second),
            ("rate_limits.address_requests_per_second", self.address_requests_per_second),
            ("rate_limits.visitor_requests_per_second", self.visitor_requests_per_second),
            ("rate_limits.share_requests_per_second", self.share_requests_per_second),
            ("rate_limits.caller_refusals_per_second", self.caller_refusals_per_second),
            ("rate_limits.tenant_refusals_per_second", self.tenant_refusals_per_second),
            ("rate_limits.address_refusals_per_second", self.address_refusals_per_second),
        ] {
            violations.check_range(key, value, 0..=PER_SECOND_MAX);
        }
        violations.check_range("rate_limits.burst_seconds", self.burst_seconds, 1..=3_600);
        violations.check_range("rate_limits.refusal_audit_seconds", self.refusal_audit_seconds, 1..=3_600);
    }
}
