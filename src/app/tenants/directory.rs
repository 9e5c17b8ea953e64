//! Finds a tenant by its name at the identity provider, and creates it provisionally on first use, at a limited rate
//! per issuer. `first_call` decides whether it will exist.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::future::Cache;
use tokio::sync::OwnedMutexGuard;
use tracing::Instrument;

use super::{creation_rate::CreationRate, first_call::ProvisionalCall};
use crate::{
    admission::Holder,
    app::{App, Denial, Error, Workload},
    config::TenantsConfig,
    db::{
        SystemTx, provisional_tenants, quotas,
        tenants::{self, TenantName},
    },
    domain::{
        caller::{Tenant, TenantState},
        clock::Timestamp,
        ids::TenantId,
        policy::Policy,
        rate_limits::RequestLimits,
    },
};

/// The maximum number of cached tenants and the time until they expire. Policies and states change rarely.
/// The process that changes them sees the change at once, the others after this time.
const CACHE_CAPACITY: u64 = 10_000;
pub(in crate::app) const CACHE_SECONDS: u32 = 10;

/// How long a name without a tenant is cached. Its calls then need no query each, and a tenant that another
/// process creates is seen after this time.
const UNKNOWN_CACHE_TIME: Duration = Duration::from_secs(1);

/// How often a first call tries to create its tenant, if other calls create it and fail at the same time.
const CREATION_ATTEMPTS_MAX: u32 = 8;

/// A tenant as of the time it was read.
#[derive(Clone)]
struct CachedTenant {
    tenant: Arc<Tenant>,
    read_time: Timestamp,
}

impl CachedTenant {
    /// A read time in the future, after the clock was set back, counts as expired.
    fn is_fresh(&self, now: Timestamp) -> bool {
        (0..i64::from(CACHE_SECONDS)).contains(&(now - self.read_time).num_seconds())
    }
}

/// A directory of tenants with a short-lived cache.
pub(in crate::app) struct TenantDirectory {
    cache: Cache<TenantName, CachedTenant>,
    /// The names without a tenant.
    unknown: Cache<TenantName, ()>,
    /// The number of invalidations. A tenant that was read before an invalidation must not be cached after
    /// it.
    invalidation_count: AtomicU64,
    is_create_on_first_use: bool,
    creations_per_minute_max: u32,
    /// The rate of each issuer that has created a tenant. Locked while one is created: calls of the same tenant
    /// wait for it, and those of other issuers do not.
    creation_rates: Mutex<HashMap<String, Arc<tokio::sync::Mutex<CreationRate>>>>,
}

impl TenantDirectory {
    pub(in crate::app) fn new(config: &TenantsConfig) -> Self {
        let ttl = Duration::from_secs(CACHE_SECONDS.into());
        Self {
            cache: Cache::builder()
                .max_capacity(CACHE_CAPACITY)
                .time_to_live(ttl)
                .support_invalidation_closures()
                .build(),
            unknown: Cache::builder().max_capacity(CACHE_CAPACITY).time_to_live(UNKNOWN_CACHE_TIME).build(),
            invalidation_count: AtomicU64::new(0),
            is_create_on_first_use: config.create_on_first_use,
            creations_per_minute_max: config.creations_per_minute_max,
            creation_rates: Mutex::default(),
        }
    }

    /// Returns the tenant with this name, or `None` if it does not exist.
    ///
    /// # Errors
    /// Returns `DatabaseUnavailable`.
    pub(in crate::app) async fn find(
        &self,
        app: &App,
        name: &TenantName,
    ) -> Result<Option<Arc<Tenant>>, Error> {
        let now = app.clock.now();
        if let Some(tenant) = self.find_cached(name, now).await {
            return Ok(Some(tenant));
        }
        if self.unknown.contains_key(name) {
            return Ok(None);
        }
        let invalidation_count = self.invalidation_count.load(Ordering::SeqCst);
        let mut tx = app.db.system_tx_for(Holder::of_name(name)).await?;
        let found = tenants::find_by_name(&mut tx, name).await?;
        tx.commit().await?;
        let Some(tenant) = found else {
            self.unknown.insert(name.clone(), ()).await;
            if self.invalidation_count.load(Ordering::SeqCst) != invalidation_count {
                self.unknown.invalidate(name).await;
            }
            return Ok(None);
        };
        Ok(Some(self.cache_tenant(name, tenant, now, invalidation_count).await))
    }

    /// Checks that the first call of a member may create a tenant. `by_issuer` is the setting of the issuer.
    ///
    /// # Errors
    /// Returns `NotAllowed` if not.
    pub(in crate::app) fn check_may_create(&self, by_issuer: Option<bool>) -> Result<(), Error> {
        match by_issuer.unwrap_or(self.is_create_on_first_use) {
            true => Ok(()),
            false => Err(Error::NotAllowed(Denial::OrganizationUnknown)),
        }
    }

    /// Returns the tenant with this name, and creates it provisionally if it does not exist. Returns a call in it if
    /// it is provisional.
    ///
    /// # Errors
    /// Returns `TenantCreationsExhausted` or `DatabaseUnavailable`.
    pub(in crate::app) async fn join_or_create(
        &self,
        app: &Arc<App>,
        name: TenantName,
    ) -> Result<(Arc<Tenant>, Option<ProvisionalCall>), Error> {
        let rate = self.creation_rate(&name.issuer).lock_owned().await;
        // Another call may have created the tenant while this one waited.
        if let Some(tenant) = self.find_cached(&name, app.clock.now()).await {
            return Ok((tenant, None));
        }
        // In a task: a call that is cancelled must not stay counted.
        let (owned, tasks) = (Arc::clone(app), app.tasks.clone());
        let joining = async move { owned.tenants.join_and_count(&owned, name, rate).await };
        tasks.spawn(joining.in_current_span()).await.map_err(Error::internal)?
    }

    async fn join_and_count(
        &self,
        app: &Arc<App>,
        name: TenantName,
        mut rate: OwnedMutexGuard<CreationRate>,
    ) -> Result<(Arc<Tenant>, Option<ProvisionalCall>), Error> {
        let now = app.clock.now();
        let invalidation_count = self.invalidation_count.load(Ordering::SeqCst);
        let mut tx = app.db.system_tx_for(Holder::of_name(&name)).await?;
        let joined = match self.find_or_create(app, &mut tx, &name, &mut rate).await {
            Ok(joined) => joined,
            Err(exhausted @ Error::TenantCreationsExhausted { .. }) => {
                // Nothing was written, and the connection can be used again.
                tx.commit().await?;
                return Err(exhausted);
            }
            Err(error) => return Err(error),
        };
        tx.commit().await?;
        match joined {
            Some(Joined::Existing(tenant)) => {
                Ok((self.cache_tenant(&name, tenant, now, invalidation_count).await, None))
            }
            Some(Joined::Provisional(tenant)) => {
                let call = ProvisionalCall::new(app, name, tenant.id);
                Ok((Arc::new(tenant), Some(call)))
            }
            None => Err(Error::Overloaded(Workload::Requests)),
        }
    }

    /// Finds, joins or creates the tenant. Returns `None` if other calls create it and fail again and again.
    async fn find_or_create(
        &self,
        app: &App,
        tx: &mut SystemTx,
        name: &TenantName,
        rate: &mut CreationRate,
    ) -> Result<Option<Joined>, Error> {
        for _ in 0..CREATION_ATTEMPTS_MAX {
            if let Some(joined) = find_or_join(tx, name).await? {
                return Ok(Some(joined));
            }
            // If another transaction has created it, the unique key makes this one wait for its commit.
            if let Some(tenant) = self.create_tenant(app, tx, name, rate).await? {
                return Ok(Some(Joined::Provisional(tenant)));
            }
        }
        Ok(None)
    }

    /// Takes back the count of a creation, because the tenant was removed.
    pub(super) async fn refund_creation(&self, issuer: &str) {
        self.creation_rate(issuer).lock().await.refund(self.creations_per_minute_max);
    }

    /// Returns the number of invalidations, for [`Self::cache_tenant`].
    pub(super) fn invalidation_count(&self) -> u64 {
        self.invalidation_count.load(Ordering::SeqCst)
    }

    /// Forgets that no tenant has this name.
    pub(super) async fn forget_unknown(&self, name: &TenantName) {
        self.unknown.invalidate(name).await;
    }

    fn creation_rate(&self, issuer: &str) -> Arc<tokio::sync::Mutex<CreationRate>> {
        let mut rates = self.creation_rates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rate) = rates.get(issuer) {
            return Arc::clone(rate);
        }
        Arc::clone(rates.entry(issuer.to_owned()).or_default())
    }

    async fn find_cached(&self, name: &TenantName, now: Timestamp) -> Option<Arc<Tenant>> {
        let cached = self.cache.get(name).await.filter(|cached| cached.is_fresh(now));
        cached.map(|cached| cached.tenant)
    }

    /// Caches a tenant that was read after this number of invalidations, unless there was one since.
    pub(super) async fn cache_tenant(
        &self,
        name: &TenantName,
        tenant: Tenant,
        read_time: Timestamp,
        invalidation_count: u64,
    ) -> Arc<Tenant> {
        let tenant = Arc::new(tenant);
        let cached = CachedTenant { tenant: Arc::clone(&tenant), read_time };
        self.cache.insert(name.clone(), cached).await;
        self.unknown.invalidate(name).await;
        if self.invalidation_count.load(Ordering::SeqCst) != invalidation_count {
            self.cache.invalidate(name).await;
        }
        tenant
    }

    /// Removes the tenant with this name from the cache.
    pub(in crate::app) async fn invalidate_name(&self, name: &TenantName) {
        self.invalidation_count.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate(name).await;
        self.unknown.invalidate(name).await;
    }

    /// Removes a tenant whose row has changed from the cache, so that the next request reads it again.
    pub(in crate::app) async fn invalidate(&self, id: TenantId) {
        self.invalidation_count.fetch_add(1, Ordering::SeqCst);
        let invalidated = self.cache.invalidate_entries_if(move |_, cached| cached.tenant.id == id);
        if let Err(error) = invalidated {
            // Cannot happen, because the cache was built with support for closures. Invalidating all entries
            // is correct too.
            tracing::warn!(%error, "failed to invalidate cached tenant");
            self.cache.invalidate_all();
        }
    }

    /// Creates the tenant provisionally, and counts it. Returns `None` if another transaction has created it.
    async fn create_tenant(
        &self,
        app: &App,
        tx: &mut SystemTx,
        name: &TenantName,
        rate: &mut CreationRate,
    ) -> Result<Option<Tenant>, Error> {
        let (now, per_minute_max) = (app.clock.now(), self.creations_per_minute_max);
        rate.check(now, per_minute_max).map_err(|retry_after| Error::TenantCreationsExhausted {
            creations_per_minute_max: per_minute_max,
            retry_after,
        })?;
        let policy = Policy::preset(app.limits.presets.find(name.kind, &name.issuer, &name.external_id))
            .map_err(Error::internal)?;
        let id = TenantId::from_uuid(app.ids.uuid());
        if !provisional_tenants::create(tx, id, name, &policy).await? {
            return Ok(None);
        }
        quotas::create(tx, id, &policy.quota).await?;
        rate.record(now, per_minute_max);
        Ok(Some(Tenant {
            id,
            kind: name.kind,
            state: TenantState::Active,
            policy,
            is_read_only: false,
            rate_limits: RequestLimits::default(),
        }))
    }
}

/// A tenant that a first call has found or created.
enum Joined {
    Existing(Tenant),
    /// The call was counted.
    Provisional(Tenant),
}

/// Finds the tenant with this name, and counts the call if it is provisional.
async fn find_or_join(tx: &mut SystemTx, name: &TenantName) -> Result<Option<Joined>, Error> {
    if let Some(tenant) = provisional_tenants::join(tx, name).await? {
        return Ok(Some(Joined::Provisional(tenant)));
    }
    Ok(tenants::find_by_name(tx, name).await?.map(Joined::Existing))
}
