//! Finds a tenant by its name at the identity provider, and creates it on first use, at a limited rate per
//! issuer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::future::Cache;
use tokio::sync::OwnedMutexGuard;
use tracing::Instrument;

use super::creation_rate::CreationRate;
use crate::{
    admission::Holder,
    app::{App, Denial, Error, Resource},
    config::TenantsConfig,
    db::{
        audit_entries::{self, AuditAction, AuditEntry},
        quotas,
        tenants::{self, TenantName},
    },
    domain::{
        caller::{Tenant, TenantKind},
        clock::Timestamp,
        ids::TenantId,
        policy::{Policy, UnknownPreset},
    },
};

/// The maximum number of cached tenants and the time until they expire. Policies and states change rarely.
/// The replica that changes them sees the change at once, the others after this time.
const CACHE_CAPACITY: u64 = 10_000;
pub(in crate::app) const CACHE_SECONDS: u32 = 10;

/// How long a name without a tenant is cached. Its calls then need no query each, and a tenant that another
/// replica creates is seen after this time.
const UNKNOWN_CACHE_TIME: Duration = Duration::from_secs(1);

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
    default_preset: Policy,
    presets: BTreeMap<String, Policy>,
    is_create_on_first_use: bool,
    creations_per_minute_max: u32,
    /// The rate of each issuer that has created a tenant. Locked while one is created: calls of the same tenant
    /// wait for it, and those of other issuers do not.
    creation_rates: Mutex<HashMap<String, Arc<tokio::sync::Mutex<CreationRate>>>>,
}

impl TenantDirectory {
    /// Creates a directory with the configured presets for new tenants.
    pub(in crate::app) fn new(config: &TenantsConfig) -> Result<Self, UnknownPreset> {
        let presets = config
            .presets
            .iter()
            .map(|(organization, preset)| Ok((organization.clone(), Policy::preset(preset)?)))
            .collect::<Result<_, _>>()?;
        let ttl = Duration::from_secs(CACHE_SECONDS.into());
        Ok(Self {
            cache: Cache::builder()
                .max_capacity(CACHE_CAPACITY)
                .time_to_live(ttl)
                .support_invalidation_closures()
                .build(),
            unknown: Cache::builder().max_capacity(CACHE_CAPACITY).time_to_live(UNKNOWN_CACHE_TIME).build(),
            invalidation_count: AtomicU64::new(0),
            default_preset: Policy::preset(&config.preset)?,
            presets,
            is_create_on_first_use: config.create_on_first_use,
            creations_per_minute_max: config.creations_per_minute_max,
            creation_rates: Mutex::default(),
        })
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

    /// Returns the tenant with this name, and creates it if it does not exist.
    ///
    /// # Errors
    /// Returns `TenantCreationsExhausted` or `DatabaseUnavailable`.
    pub(in crate::app) async fn get_or_create(
        &self,
        app: &Arc<App>,
        name: TenantName,
    ) -> Result<Arc<Tenant>, Error> {
        let rate = self.creation_rate(&name.issuer).lock_owned().await;
        let now = app.clock.now();
        // Another call may have created the tenant while this one waited.
        if let Some(tenant) = self.find_cached(&name, now).await {
            return Ok(tenant);
        }
        let per_minute_max = self.creations_per_minute_max;
        rate.check(now, per_minute_max).map_err(|retry_after| Error::TenantCreationsExhausted {
            creations_per_minute_max: per_minute_max,
            retry_after,
        })?;
        // In a task: a call that is cancelled would count, and create nothing.
        let (owned, tasks) = (Arc::clone(app), app.tasks.clone());
        let creating = async move { owned.tenants.create_and_count(&owned, name, rate, now).await };
        tasks.spawn(creating.in_current_span()).await.map_err(Error::internal)?
    }

    /// Creates a tenant unless another transaction does, and counts it.
    async fn create_and_count(
        &self,
        app: &App,
        name: TenantName,
        mut rate: OwnedMutexGuard<CreationRate>,
        now: Timestamp,
    ) -> Result<Arc<Tenant>, Error> {
        let invalidation_count = self.invalidation_count.load(Ordering::SeqCst);
        let (tenant, is_new) = self.create_tenant(app, &name).await?;
        if is_new {
            rate.record(now, self.creations_per_minute_max);
        }
        Ok(self.cache_tenant(&name, tenant, now, invalidation_count).await)
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
    async fn cache_tenant(
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

    /// Creates the tenant. Returns it, and whether this call has created it.
    async fn create_tenant(&self, app: &App, name: &TenantName) -> Result<(Tenant, bool), Error> {
        let named = self.presets.get(&name.external_id).filter(|_| name.kind == TenantKind::Organization);
        let policy = named.unwrap_or(&self.default_preset);
        let id = TenantId::from_uuid(app.ids.uuid());
        let mut tx = app.db.system_tx().await?;
        let is_new = tenants::create(&mut tx, id, name, policy).await?;
        if is_new {
            quotas::create(&mut tx, id, &policy.quota).await?;
            let details =
                serde_json::json!({ "kind": name.kind, "issuer": name.issuer, "preset": policy.name });
            let entry = AuditEntry::system(AuditAction::TenantCreate, details);
            audit_entries::insert_for(&mut tx, id, &[entry]).await?;
            tracing::info!(tenant = %id, kind = %name.kind, preset = %policy.name, "created tenant");
        }
        // If another transaction created the tenant first, the unique key made this one wait for its commit.
        let tenant = tenants::find_by_name(&mut tx, name).await?.ok_or(Error::NotFound(Resource::Tenant))?;
        tx.commit().await?;
        Ok((tenant, is_new))
    }
}
