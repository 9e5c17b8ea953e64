//! Metrics of rate limits that processes share.

use opentelemetry::metrics::{Counter, Gauge, Meter};

use super::{Metrics, counter};

pub(super) struct RateLimitInstruments {
    fallbacks: Counter<u64>,
    shared: Gauge<u64>,
}

impl RateLimitInstruments {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            fallbacks: counter(
                meter,
                "strongroom.rate_limit.fallbacks",
                "",
                "Requests that this process limited by itself, because Redis was unavailable",
            ),
            shared: meter
                .u64_gauge("strongroom.rate_limit.shared")
                .with_description("Whether rate limits are shared through Redis, 0 or 1")
                .build(),
        }
    }
}

impl Metrics {
    /// Counts a request that this process limited by itself, because Redis was unavailable.
    pub fn count_rate_limit_fallback(&self) {
        self.inner.rate_limits.fallbacks.add(1, &[]);
    }

    /// Sets whether rate limits are shared through Redis.
    pub fn set_rate_limits_shared(&self, is_shared: bool) {
        self.inner.rate_limits.shared.record(u64::from(is_shared), &[]);
    }
}
