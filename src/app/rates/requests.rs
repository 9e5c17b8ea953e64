//! Limits the requests per second of callers, of each action of a caller, and of tenants.

use std::time::Duration;

use super::CountedRequest;
use crate::{
    admission::{
        CallerKey,
        rates::{Bucket, EmptyBucket, RateBuckets, RateLevel},
        shared_rates::{SharedBucket, SharedRates, SharedTake},
    },
    app::{Error, RateEvent, RateScope},
    config::RateLimitsConfig,
    domain::{
        caller::{Actor, Caller},
        digest::Digest,
        ids::TenantId,
        rate_limits::{RateAction, RequestLimit, RequestLimits},
    },
};

/// The limits of requests per second.
#[derive(Debug)]
pub(super) struct RequestRates {
    /// The limits of tenants whose record sets none.
    limits: RequestLimits,
    burst: Duration,
    buckets: RateBuckets<BucketKey>,
}

/// A bucket of a tenant, of a caller, or of an action of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct BucketKey {
    tenant: TenantId,
    /// `None` for the bucket of the tenant.
    caller: Option<CallerKey>,
    limit: RequestLimit,
}

/// A limit that applies to a request.
#[derive(Debug, Clone, Copy)]
struct AppliedLimit {
    limit: RequestLimit,
    per_second_max: u32,
}

impl RequestRates {
    pub(super) fn new(config: &RateLimitsConfig) -> Self {
        let burst = Duration::from_secs(config.burst_seconds);
        Self { limits: config.request_limits(), burst, buckets: RateBuckets::new(burst) }
    }

    /// Takes a token from the bucket of the caller, from that of its action and from that of its tenant, or from none
    /// if one is empty. So a caller above its own rate does not use up that of its tenant.
    pub(super) async fn count(
        &self,
        shared: Option<&SharedRates>,
        caller: &Caller,
        action: RateAction,
    ) -> CountedRequest {
        let of_tenant = &caller.tenant.rate_limits;
        let applied: Vec<AppliedLimit> =
            [RequestLimit::Caller, RequestLimit::Action(action), RequestLimit::Tenant]
                .into_iter()
                .map(|limit| AppliedLimit { limit, per_second_max: self.limits.effective(of_tenant, limit) })
                .filter(|applied| applied.per_second_max > 0)
                .collect();
        if applied.is_empty() {
            return CountedRequest { level: None, outcome: Ok(()) };
        }
        if let Some(shared) = shared
            && let Some(counted) = self.count_shared(shared, &applied, caller).await
        {
            return counted;
        }
        self.count_here(&applied, caller)
    }

    /// Takes from the buckets of this process.
    fn count_here(&self, applied: &[AppliedLimit], caller: &Caller) -> CountedRequest {
        let (tenant, key) = (caller.tenant_id(), CallerKey::of_actor(&caller.actor));
        let bucket = |applied: &AppliedLimit| {
            let AppliedLimit { limit, per_second_max } = *applied;
            let caller = (limit != RequestLimit::Tenant).then_some(key);
            Bucket { key: BucketKey { tenant, caller, limit }, per_second_max }
        };
        let buckets: Vec<Bucket<BucketKey>> = applied.iter().map(bucket).collect();
        match self.buckets.take(&buckets) {
            Ok(level) => CountedRequest { level, outcome: Ok(()) },
            Err(EmptyBucket { index, level, retry_after }) => applied[index].refuse(level, retry_after),
        }
    }

    /// Takes from the buckets in Redis. Returns `None` if it is unavailable.
    async fn count_shared(
        &self,
        shared: &SharedRates,
        applied: &[AppliedLimit],
        caller: &Caller,
    ) -> Option<CountedRequest> {
        let bucket = |applied: &AppliedLimit| SharedBucket {
            key: shared_key(applied.limit, caller.tenant_id(), &caller.actor),
            per_second_max: applied.per_second_max,
            burst: self.burst,
        };
        let buckets: Vec<SharedBucket> = applied.iter().map(bucket).collect();
        match shared.take(&buckets).await? {
            SharedTake::Taken(level) => Some(CountedRequest { level: Some(level), outcome: Ok(()) }),
            SharedTake::Empty { index, level, retry_after } => {
                Some(applied.get(index)?.refuse(level, retry_after))
            }
        }
    }
}

impl AppliedLimit {
    fn refuse(self, level: RateLevel, retry_after: Duration) -> CountedRequest {
        let Self { limit, per_second_max } = self;
        let (scope, event) = match limit {
            RequestLimit::Tenant => (RateScope::Tenant, RateEvent::Requests),
            RequestLimit::Caller => (RateScope::Caller, RateEvent::Requests),
            RequestLimit::Action(action) => (RateScope::Caller, RateEvent::Action(action)),
        };
        CountedRequest {
            level: Some(level),
            outcome: Err(Error::RateLimited { scope, event, per_second_max, retry_after }),
        }
    }
}

/// Returns the key of a bucket in Redis.
fn shared_key(limit: RequestLimit, tenant: TenantId, actor: &Actor) -> String {
    // All keys of a call have the same tag in braces, so a cluster stores them together.
    let tenant = format!("strongroom:rate:{{{tenant}}}");
    let caller = || Digest::compute(format!("{} {}", actor.kind.number(), actor.id).as_bytes());
    match limit {
        RequestLimit::Tenant => tenant,
        RequestLimit::Caller => format!("{tenant}:{}", caller()),
        RequestLimit::Action(action) => format!("{tenant}:{}:{}", caller(), action.name()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use uuid::Uuid;

    use super::*;
    use crate::{
        config::Config,
        domain::{
            caller::{Origin, Role, Tenant, TenantKind, TenantState},
            policy::Policy,
        },
    };

    fn caller(name: &str, rate_limits: RequestLimits) -> Caller {
        let tenant = Tenant {
            id: TenantId::from_uuid(Uuid::from_u128(7)),
            kind: TenantKind::Organization,
            state: TenantState::Active,
            is_read_only: false,
            rate_limits,
            policy: Policy::preset("general").unwrap(),
        };
        Caller {
            tenant: Arc::new(tenant),
            actor: Actor::user(name),
            role: Role::Member,
            groups: Vec::new(),
            scopes: Vec::new(),
            origin: Origin::default(),
            first_call: None,
        }
    }

    /// Returns rates with these limits, whose buckets hold the tokens of one second.
    fn rates(limits: RequestLimits) -> RequestRates {
        let mut config = Config::defaults().unwrap().rate_limits;
        config.burst_seconds = 1;
        RequestRates { limits, ..RequestRates::new(&config) }
    }

    /// Returns how many of 20 requests are served.
    async fn count_served(rates: &RequestRates, caller: &Caller, action: RateAction) -> usize {
        let mut served = 0;
        for _ in 0..20 {
            served += usize::from(rates.count(None, caller, action).await.outcome.is_ok());
        }
        served
    }

    #[tokio::test(start_paused = true)]
    async fn caller_above_its_rate_takes_nothing_from_its_tenant() {
        for (limits, action) in [
            (RequestLimits { caller_requests_per_second: 2, ..RequestLimits::default() }, RateAction::Read),
            (RequestLimits { caller_uploads_per_second: 2, ..RequestLimits::default() }, RateAction::Upload),
        ] {
            let rates = rates(RequestLimits { tenant_requests_per_second: 5, ..limits });
            let member = |name| caller(name, RequestLimits::default());
            assert_eq!(count_served(&rates, &member("mallory"), action).await, 2);
            let mut served = 0;
            for colleague in ["alice", "bob", "carol"] {
                served += count_served(&rates, &member(colleague), action).await;
            }
            assert_eq!(served, 3, "the rest of the tenant's tokens");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn record_of_the_tenant_lowers_and_raises_limits() {
        let limits = RequestLimits { caller_uploads_per_second: 5, ..RequestLimits::default() };
        for own in [2, 9] {
            let of_tenant = RequestLimits { caller_uploads_per_second: own, ..RequestLimits::default() };
            let served = count_served(&rates(limits), &caller("alice", of_tenant), RateAction::Upload).await;
            assert_eq!(served, own as usize);
        }
        let alice = caller("alice", RequestLimits::default());
        assert_eq!(count_served(&rates(limits), &alice, RateAction::Upload).await, 5);
        assert_eq!(count_served(&rates(limits), &alice, RateAction::Read).await, 20);
    }

    #[test]
    fn shared_keys_are_distinct_and_of_one_slot() {
        let (tenant, alice) = (TenantId::from_uuid(Uuid::from_u128(7)), Actor::user("alice"));
        let keys: BTreeSet<String> =
            RequestLimit::ALL.into_iter().map(|limit| shared_key(limit, tenant, &alice)).collect();
        assert_eq!(keys.len(), RequestLimit::ALL.len());
        let slot = format!("strongroom:rate:{{{tenant}}}");
        for key in keys {
            assert!(key.starts_with(&slot) && !key.contains("alice"), "{key}");
        }
    }
}
