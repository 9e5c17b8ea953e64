//! Limits the calls per second of callers and of tenants.

use crate::{
    admission::{CallerKey, rates::RateLimiter},
    app::{Error, RateEvent, RateScope},
    config::RateLimitsConfig,
    db::tenants::TenantName,
    domain::{caller::Caller, ids::TenantId},
};

/// The limits of calls per second of callers and of tenants, in this process.
#[derive(Debug)]
pub struct CallerRates {
    requests: Limiters,
    /// The requests to tenants that do not exist yet.
    newcomers: RateLimiter<TenantName>,
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
            newcomers: RateLimiter::new(config.tenant_requests_per_second, config.burst_seconds),
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

    /// Counts a request to a tenant that does not exist yet.
    ///
    /// # Errors
    /// Returns `RateLimited` if there are too many.
    pub fn count_newcomer(&self, name: &TenantName) -> Result<(), Error> {
        self.newcomers.take(name.clone()).map_err(|retry_after| Error::RateLimited {
            scope: RateScope::Tenant,
            event: RateEvent::Requests,
            per_second_max: self.requests.tenant_per_second_max,
            retry_after,
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, domain::caller::TenantKind};

    #[tokio::test(start_paused = true)]
    async fn requests_to_a_missing_tenant_are_limited_by_its_name() {
        let mut config = Config::defaults().unwrap();
        (config.rate_limits.tenant_requests_per_second, config.rate_limits.burst_seconds) = (5, 1);
        let rates = CallerRates::new(&config.rate_limits);
        let name = |external_id: &str| TenantName {
            kind: TenantKind::Organization,
            issuer: "https://id.example.org".to_owned(),
            external_id: external_id.to_owned(),
        };
        let served = (0..20).filter(|_| rates.count_newcomer(&name("flood")).is_ok()).count();
        assert_eq!(served, 5);
        assert!(rates.count_newcomer(&name("other")).is_ok());
    }
}
