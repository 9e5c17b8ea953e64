//! Limits the calls per second of callers and of tenants.

use crate::{
    admission::{CallerKey, rates::RateLimiter},
    app::{Error, RateEvent, RateScope},
    config::RateLimitsConfig,
    domain::{caller::Caller, ids::TenantId},
};

/// The limits of calls per second of callers and of tenants, in this process.
#[derive(Debug)]
pub struct CallerRates {
    requests: Limiters,
    refusals: Limiters,
}

#[derive(Debug)]
struct Limiters {
    event: RateEvent,
    caller_per_second_max: u32,
    tenant_per_second_max: u32,
    callers: RateLimiter<(TenantId, CallerKey)>,
    tenants: RateLimiter<TenantId>,
}

impl CallerRates {
    pub(in crate::app) fn new(config: &RateLimitsConfig) -> Self {
        let limiters = |event, caller_per_second_max, tenant_per_second_max| Limiters {
            event,
            caller_per_second_max,
            tenant_per_second_max,
            callers: RateLimiter::new(caller_per_second_max, config.burst_seconds),
            tenants: RateLimiter::new(tenant_per_second_max, config.burst_seconds),
        };
        Self {
            requests: limiters(
                RateEvent::Requests,
                config.caller_requests_per_second,
                config.tenant_requests_per_second,
            ),
            refusals: limiters(
                RateEvent::Refusals,
                config.caller_refusals_per_second,
                config.tenant_refusals_per_second,
            ),
        }
    }

    /// Counts a request of a caller.
    ///
    /// # Errors
    /// Returns `RateLimited` if the caller or its tenant makes too many.
    pub fn count_request(&self, caller: &Caller) -> Result<(), Error> {
        self.requests.take(caller)
    }

    /// Counts a refused call of a caller.
    ///
    /// # Errors
    /// Returns `RateLimited` if the caller or its tenant makes too many.
    pub(in crate::app) fn count_refusal(&self, caller: &Caller) -> Result<(), Error> {
        self.refusals.take(caller)
    }
}

impl Limiters {
    /// Takes from the caller first, so that a caller above its own rate does not use up that of its tenant.
    fn take(&self, caller: &Caller) -> Result<(), Error> {
        let key = (caller.tenant_id(), CallerKey::of_actor(&caller.actor));
        let limited = |scope, per_second_max| {
            move |retry_after| Error::RateLimited { scope, event: self.event, per_second_max, retry_after }
        };
        self.callers.take(key).map_err(limited(RateScope::Caller, self.caller_per_second_max))?;
        self.tenants.take(caller.tenant_id()).map_err(limited(RateScope::Tenant, self.tenant_per_second_max))
    }
}
