//! Finds a tenant by its name at the identity provider, and creates it on first use.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::future::Cache;

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
    /// The number of invalidations. A tenant that was read before an invalidation must not be cached after
    /// it.
    invalidation_count: AtomicU64,
    default_preset: Policy,
    presets: BTreeMap<String, Policy>,
    is_create_on_first_use: bool,
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
            invalidation_count: AtomicU64::new(0),
            default_preset: Policy::preset(&config.preset)?,
            presets,
            is_create_on_first_use: config.create_on_first_use,
        })
    }

    /// Returns the tenant with this name. Creates a missing tenant if the configuration allows it.
    ///
    /// # Errors
    /// Returns `NotAllowed` if it does not, or `DatabaseUnavailable`.
    pub(in crate::app) async fn get_or_create(
        &self,
        app: &App,
        name: TenantName,
    ) -> Result<Arc<Tenant>, Error> {
        let now = app.clock.now();
        if let Some(cached) = self.cache.get(&name).await.filter(|cached| cached.is_fresh(now)) {
            return Ok(cached.tenant);
        }
        let invalidation_count = self.invalidation_count.load(Ordering::SeqCst);
        let mut tx = app.db.system_tx_for(Holder::of_name(&name)).await?;
        let found = tenants::find_by_name(&mut tx, &name).await?;
        tx.commit().await?;
        let tenant = Arc::new(match found {
            Some(tenant) => tenant,
            None if self.is_create_on_first_use => self.create_tenant(app, &name).await?,
            None => return Err(Error::NotAllowed(Denial::OrganizationUnknown)),
        });
        let cached = CachedTenant { tenant: Arc::clone(&tenant), read_time: now };
        self.cache.insert(name.clone(), cached).await;
        if self.invalidation_count.load(Ordering::SeqCst) != invalidation_count {
            self.cache.invalidate(&name).await;
        }
        Ok(tenant)
    }

    /// Removes the tenant with this name from the cache.
    pub(in crate::app) async fn invalidate_name(&self, name: &TenantName) {
        self.invalidation_count.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate(name).await;
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

    async fn create_tenant(&self, app: &App, name: &TenantName) -> Result<Tenant, Error> {
        let named = self.presets.get(&name.external_id).filter(|_| name.kind == TenantKind::Organization);
        let policy = named.unwrap_or(&self.default_preset);
        let id = TenantId::from_uuid(app.ids.uuid());
        let mut tx = app.db.system_tx().await?;
        if tenants::create(&mut tx, id, name, policy).await? {
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
        Ok(tenant)
    }
}
