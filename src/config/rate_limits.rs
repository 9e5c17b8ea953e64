//! `[rate_limits]`: requests and refusals per second.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;
use crate::domain::rate_limits::{PER_SECOND_MAX, RequestLimit, RequestLimits};

/// Limits of requests and refusals per second, in this process. 0 means no limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitsConfig {
    /// Maximum number of requests of one caller per second.
    pub caller_requests_per_second: u32,
    /// Maximum number of requests of one tenant per second.
    pub tenant_requests_per_second: u32,
    /// Maximum number of requests of one caller per second that read single records or check something.
    pub caller_reads_per_second: u32,
    /// Maximum number of requests of one caller per second for lists and watches.
    pub caller_lists_per_second: u32,
    /// Maximum number of requests of one caller per second for the bytes of files.
    pub caller_downloads_per_second: u32,
    /// Maximum number of requests of one caller per second that begin an upload or send a file or a part.
    pub caller_uploads_per_second: u32,
    /// Maximum number of requests of one caller per second that change anything else.
    pub caller_changes_per_second: u32,
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

    /// Returns the limits of the requests of callers and tenants.
    pub fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            tenant_requests_per_second: self.tenant_requests_per_second,
            caller_requests_per_second: self.caller_requests_per_second,
            caller_reads_per_second: self.caller_reads_per_second,
            caller_lists_per_second: self.caller_lists_per_second,
            caller_downloads_per_second: self.caller_downloads_per_second,
            caller_uploads_per_second: self.caller_uploads_per_second,
            caller_changes_per_second: self.caller_changes_per_second,
        }
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        let limits = self.request_limits();
        for limit in RequestLimit::ALL {
            let key = format!("rate_limits.{}", limit.key());
            violations.check_range(&key, limits.get(limit), 0..=PER_SECOND_MAX);
        }
        for (key, value) in [
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
