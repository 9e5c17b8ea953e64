//! Limits the calls per second of callers and of tenants.
//!
//! All processes share the limits of requests through Redis, if it is configured and available. Otherwise, and for
//! refusals and newcomers, each process limits by itself.

mod requests;

use std::hash::Hash;

use self::requests::RequestRates;
use crate::{
    admission::{
        CallerKey,
        rates::{RateLevel, RateLimiter},
        shared_rates::{RedisOptions, RedisUrlError, SharedCheck, SharedRates},
        subject_rates::{SubjectRates, TooManySubjects},
    },
    app::{Error, RateEvent, RateScope, Workload},
    config::{RateLimitsConfig, SharedLimitsConfig},
    db::tenants::TenantName,
    domain::{
        caller::Caller,
        digest::Digest,
        ids::{ShareId, TenantId},
        rate_limits::RateAction,
        subject_rate::{RateDecision, SubjectEvent},
    },
    telemetry::Metrics,
};

/// Opens the buckets that all processes share. Returns `None` if they share none.
///
/// # Errors
/// Returns an error if the URL is wrong.
pub fn open_shared_rates(
    config: &SharedLimitsConfig,
    metrics: &Metrics,
) -> Result<Option<SharedRates>, RedisUrlError> {
    let Some(url) = config.redis_url.clone() else { return Ok(None) };
    SharedRates::new(&RedisOptions { url, timeout: config.redis_timeout() }, metrics.clone()).map(Some)
}

/// A request that was counted.
#[derive(Debug)]
pub struct CountedRequest {
    /// The level of the bucket with the fewest tokens, or `None` without a limit.
    pub level: Option<RateLevel>,
    /// `RateLimited` if the caller or its tenant makes too many requests.
    pub outcome: Result<(), Error>,
}

/// The limits of calls per second of callers and of tenants.
#[derive(Debug)]
pub struct CallerRates {
    /// The buckets of requests that all processes share, if they share any.
    shared: Option<SharedRates>,
    requests: RequestRates,
    /// The requests to tenants that do not exist yet.
    newcomers: RateLimiter<TenantName>,
    caller_refusals: RateLimiter<(TenantId, CallerKey)>,
    tenant_refusals: RateLimiter<TenantId>,
    /// The requests of the visitors of each share. They take nothing from the members of the tenant.
    visitors: RateLimiter<ShareId>,
    /// The limits that services of tenants define.
    subjects: SubjectRates,
}

impl CallerRates {
    pub(in crate::app) fn new(config: &RateLimitsConfig, shared: Option<SharedRates>) -> Self {
        Self {
            shared,
            requests: RequestRates::new(config),
            subjects: SubjectRates::default(),
            visitors: RateLimiter::new(config.share_requests_per_second, config.burst_seconds),
            newcomers: RateLimiter::new(config.tenant_requests_per_second, config.burst_seconds),
            caller_refusals: RateLimiter::new(config.caller_refusals_per_second, config.burst_seconds),
            tenant_refusals: RateLimiter::new(config.tenant_refusals_per_second, config.burst_seconds),
        }
    }

    /// Counts a request of a caller, in one round trip to Redis if processes share the limits. The limits that the
    /// record of its tenant sets replace those of the configuration.
    pub async fn count_request(&self, caller: &Caller, action: RateAction) -> CountedRequest {
        self.requests.count(self.shared.as_ref(), caller, action).await
    }

    /// Checks an event of a subject that a service of a tenant names.
    ///
    /// # Errors
    /// Returns `Overloaded` if the tenant has too many subjects.
    pub(in crate::app) async fn check_subject(
        &self,
        tenant: TenantId,
        subject: Digest,
        event: &SubjectEvent,
    ) -> Result<RateDecision, Error> {
        let shared = match &self.shared {
            Some(shared) => shared.check(tenant, subject, event).await,
            None => None,
        };
        match shared {
            Some(SharedCheck::Decided(decision)) => Ok(decision),
            Some(SharedCheck::TooManySubjects) => Err(Error::Overloaded(Workload::RateSubjects)),
            None => self
                .subjects
                .check(tenant, subject, event)
                .map_err(|TooManySubjects| Error::Overloaded(Workload::RateSubjects)),
        }
    }

    /// Counts a request to a tenant that does not exist yet.
    ///
    /// # Errors
    /// Returns `RateLimited` if there are too many.
    pub fn count_newcomer(&self, name: &TenantName) -> Result<(), Error> {
        take(&self.newcomers, name.clone(), RateScope::Tenant, RateEvent::Requests)
    }

    /// Counts a request of a visitor of a share.
    ///
    /// # Errors
    /// Returns `RateLimited` if the visitors of the share make too many.
    pub(in crate::app) fn count_visitor(&self, share: ShareId) -> Result<(), Error> {
        take(&self.visitors, share, RateScope::Share, RateEvent::Requests)
    }

    /// Counts a refused call of a caller. Takes from the caller first, so that a caller above its own rate does not use
    /// up that of its tenant.
    ///
    /// # Errors
    /// Returns `RateLimited` if the caller or its tenant makes too many.
    pub(in crate::app) fn count_refusal(&self, caller: &Caller) -> Result<(), Error> {
        let (tenant, key) = (caller.tenant_id(), CallerKey::of_actor(&caller.actor));
        take(&self.caller_refusals, (tenant, key), RateScope::Caller, RateEvent::Refusals)?;
        take(&self.tenant_refusals, tenant, RateScope::Tenant, RateEvent::Refusals)
    }
}

fn take<K: Clone + Eq + Hash>(
    limiter: &RateLimiter<K>,
    key: K,
    scope: RateScope,
    event: RateEvent,
) -> Result<(), Error> {
    let per_second_max = limiter.per_second_max();
    limiter.take(key).map_err(|retry_after| Error::RateLimited { scope, event, per_second_max, retry_after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, domain::caller::TenantKind};

    #[tokio::test(start_paused = true)]
    async fn requests_to_a_missing_tenant_are_limited_by_its_name() {
        let mut config = Config::defaults().unwrap();
        (config.rate_limits.tenant_requests_per_second, config.rate_limits.burst_seconds) = (5, 1);
        let rates = CallerRates::new(&config.rate_limits, None);
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
