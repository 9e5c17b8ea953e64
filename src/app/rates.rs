//! Limits the calls per second of callers and of tenants.
//!
//! All processes share the limits of requests through Redis, if it is configured and available. Otherwise, and for
//! refusals and newcomers, each process limits by itself.

use std::time::Duration;

use crate::{
    admission::{
        CallerKey,
        rates::{EmptyBucket, RateLevel, RateLimiter},
        shared_rates::{RedisOptions, RedisUrlError, SharedBucket, SharedCheck, SharedRates, SharedTake},
        subject_rates::{SubjectRates, TooManySubjects},
    },
    app::{Error, RateEvent, RateScope, Workload},
    config::{RateLimitsConfig, SharedLimitsConfig},
    db::tenants::TenantName,
    domain::{
        caller::Caller,
        digest::Digest,
        ids::{ShareId, TenantId},
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
    requests: Limiters,
    /// The requests to tenants that do not exist yet.
    newcomers: RateLimiter<TenantName>,
    refusals: Limiters,
    /// The requests of the visitors of each share. They take nothing from the members of the tenant.
    visitors: RateLimiter<ShareId>,
    share_per_second_max: u32,
    /// The limits that services of tenants define.
    subjects: SubjectRates,
}

#[derive(Debug)]
struct Limiters {
    event: RateEvent,
    caller_per_second_max: u32,
    tenant_per_second_max: u32,
    burst: Duration,
    callers: RateLimiter<(TenantId, CallerKey)>,
    tenants: RateLimiter<TenantId>,
}

impl CallerRates {
    pub(in crate::app) fn new(config: &RateLimitsConfig, shared: Option<SharedRates>) -> Self {
        let limiters = |event, caller_per_second_max, tenant_per_second_max| Limiters {
            event,
            caller_per_second_max,
            tenant_per_second_max,
            burst: Duration::from_secs(config.burst_seconds),
            callers: RateLimiter::new(caller_per_second_max, config.burst_seconds),
            tenants: RateLimiter::new(tenant_per_second_max, config.burst_seconds),
        };
        Self {
            shared,
            subjects: SubjectRates::default(),
            visitors: RateLimiter::new(config.share_requests_per_second, config.burst_seconds),
            share_per_second_max: config.share_requests_per_second,
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

    /// Counts a request of a caller, in one round trip to Redis if processes share the limits.
    pub async fn count_request(&self, caller: &Caller) -> CountedRequest {
        if let Some(shared) = &self.shared
            && let Some(counted) = self.requests.count_shared(shared, caller).await
        {
            return counted;
        }
        self.requests.count(caller.tenant_id(), CallerKey::of_actor(&caller.actor))
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
        self.newcomers.take(name.clone()).map_err(|retry_after| Error::RateLimited {
            scope: RateScope::Tenant,
            event: RateEvent::Requests,
            per_second_max: self.requests.tenant_per_second_max,
            retry_after,
        })
    }

    /// Counts a request of a visitor of a share.
    ///
    /// # Errors
    /// Returns `RateLimited` if the visitors of the share make too many.
    pub(in crate::app) fn count_visitor(&self, share: ShareId) -> Result<(), Error> {
        self.visitors.take(share).map_err(|retry_after| Error::RateLimited {
            scope: RateScope::Share,
            event: RateEvent::Requests,
            per_second_max: self.share_per_second_max,
            retry_after,
        })
    }

    /// Counts a refused call of a caller.
    ///
    /// # Errors
    /// Returns `RateLimited` if the caller or its tenant makes too many.
    pub(in crate::app) fn count_refusal(&self, caller: &Caller) -> Result<(), Error> {
        self.refusals.count(caller.tenant_id(), CallerKey::of_actor(&caller.actor)).outcome
    }
}

impl Limiters {
    /// Takes from the caller first, so that a caller above its own rate does not use up that of its tenant.
    fn count(&self, tenant: TenantId, key: CallerKey) -> CountedRequest {
        let own = match self.callers.take_with_level((tenant, key)) {
            Ok(level) => level,
            Err(EmptyBucket { level, retry_after }) => {
                return self.refuse(RateScope::Caller, level, retry_after);
            }
        };
        match self.tenants.take_with_level(tenant) {
            Ok(tenants) => {
                let level = own.into_iter().chain(tenants).min_by_key(|level| level.remaining);
                CountedRequest { level, outcome: Ok(()) }
            }
            Err(EmptyBucket { level, retry_after }) => self.refuse(RateScope::Tenant, level, retry_after),
        }
    }

    /// Takes from both buckets in Redis, or from none. Returns `None` if Redis is unavailable.
    async fn count_shared(&self, shared: &SharedRates, caller: &Caller) -> Option<CountedRequest> {
        let scopes = [RateScope::Caller, RateScope::Tenant].into_iter();
        let limited: Vec<RateScope> = scopes.filter(|scope| self.per_second_max(*scope) > 0).collect();
        if limited.is_empty() {
            return Some(CountedRequest { level: None, outcome: Ok(()) });
        }
        let buckets: Vec<SharedBucket> = limited.iter().map(|scope| self.bucket(*scope, caller)).collect();
        match shared.take(&buckets).await? {
            SharedTake::Taken(level) => Some(CountedRequest { level: Some(level), outcome: Ok(()) }),
            SharedTake::Empty { index, level, retry_after } => {
                Some(self.refuse(*limited.get(index)?, level, retry_after))
            }
        }
    }

    fn bucket(&self, scope: RateScope, caller: &Caller) -> SharedBucket {
        // All keys of a call have the same tag in braces, so a cluster stores them together.
        let tenant = format!("strongroom:rate:{{{}}}", caller.tenant_id());
        let key = match scope {
            RateScope::Tenant => tenant,
            RateScope::Caller | RateScope::Address | RateScope::Share => {
                let name = format!("{} {}", caller.actor.kind.number(), caller.actor.id);
                format!("{tenant}:{}", Digest::compute(name.as_bytes()))
            }
        };
        SharedBucket { key, per_second_max: self.per_second_max(scope), burst: self.burst }
    }

    const fn per_second_max(&self, scope: RateScope) -> u32 {
        match scope {
            RateScope::Tenant => self.tenant_per_second_max,
            RateScope::Caller | RateScope::Address | RateScope::Share => self.caller_per_second_max,
        }
    }

    fn refuse(&self, scope: RateScope, level: RateLevel, retry_after: Duration) -> CountedRequest {
        let (event, per_second_max) = (self.event, self.per_second_max(scope));
        CountedRequest {
            level: Some(level),
            outcome: Err(Error::RateLimited { scope, event, per_second_max, retry_after }),
        }
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
