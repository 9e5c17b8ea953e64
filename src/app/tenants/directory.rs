//! Finds a tenant by what the identity provider calls it, and lets it be born at first sight.

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
    app::{App, Error},
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

/// How many tenants are remembered, and for how long: their policies and states change rarely. The replica that changes
/// them knows at once, every other after this.
const CACHE_CAPACITY: u64 = 10_000;
pub(in crate::app) const CACHE_SECONDS: u32 = 10;

/// A tenant as it was.
#[derive(Clone)]
struct Remembered {
    tenant: Arc<Tenant>,
    read_time: Timestamp,
}

impl Remembered {
    /// A clock that was set back makes it old, not young.
    fn is_fresh(&self, now: Timestamp) -> bool {
        (0..i64::from(CACHE_SECONDS)).contains(&(now - self.read_time).num_seconds())
    }
}

/// The directory, with a short memory.
pub(in crate::app) struct TenantDirectory {
    cache: Cache<TenantName, Remembered>,
    /// How often something was forgotten: whoever has read a tenant before must not remember it after.
    forgotten: AtomicU64,
    preset: Policy,
    presets: BTreeMap<String, Policy>,
    creates: bool,
}

impl TenantDirectory {
    /// Reads the presets that new tenants are born with.
    pub(in crate::app) fn new(config: &TenantsConfig) -> Result<Self, UnknownPreset> {
        let presets = config
            .presets
            .iter()
            .map(|(organization, preset)| Ok((organization.clone(), Policy::preset(preset)?)))
            .collect::<Result<_, _>>()?;
        let life = Duration::from_secs(CACHE_SECONDS.into());
        Ok(Self {
            cache: Cache::builder()
                .max_capacity(CACHE_CAPACITY)
                .time_to_live(life)
                .support_invalidation_closures()
                .build(),
            forgotten: AtomicU64::new(0),
            preset: Policy::preset(&config.preset)?,
            presets,
            creates: config.create_at_first_sight,
        })
    }

    /// The tenant of this name. One that is not there is born now, where the configuration lets it.
    pub(in crate::app) async fn get(&self, app: &App, name: TenantName) -> Result<Arc<Tenant>, Error> {
        let now = app.clock.now();
        if let Some(remembered) = self.cache.get(&name).await.filter(|remembered| remembered.is_fresh(now)) {
            return Ok(remembered.tenant);
        }
        let forgotten = self.forgotten.load(Ordering::SeqCst);
        let mut tx = app.db.system_tx().await?;
        let found = tenants::find(&mut tx, &name).await?;
        tx.commit().await?;
        let tenant = Arc::new(match found {
            Some(tenant) => tenant,
            None if self.creates => self.create(app, &name).await?,
            None => {
                return Err(Error::NotAllowed(
                    "this organisation is not known here; its operator must create it",
                ));
            }
        });
        let remembered = Remembered { tenant: Arc::clone(&tenant), read_time: now };
        self.cache.insert(name.clone(), remembered).await;
        if self.forgotten.load(Ordering::SeqCst) != forgotten {
            self.cache.invalidate(&name).await;
        }
        Ok(tenant)
    }

    /// Forgets what a name stood for.
    pub(in crate::app) async fn forget_name(&self, name: &TenantName) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate(name).await;
    }

    /// Forgets a tenant whose row has changed: the next request reads it anew.
    pub(in crate::app) async fn forget(&self, id: TenantId) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        let forgotten = self.cache.invalidate_entries_if(move |_, remembered| remembered.tenant.id == id);
        if let Err(error) = forgotten {
            // It was built with such closures; and if not, all are forgotten, which is right as well.
            tracing::warn!(%error, "forget a tenant");
            self.cache.invalidate_all();
        }
    }

    async fn create(&self, app: &App, name: &TenantName) -> Result<Tenant, Error> {
        let named = self.presets.get(&name.external_id).filter(|_| name.kind == TenantKind::Organization);
        let policy = named.unwrap_or(&self.preset);
        let id = TenantId::from_uuid(app.ids.uuid());
        let mut tx = app.db.system_tx().await?;
        if tenants::create(&mut tx, id, name, policy).await? {
            quotas::create(&mut tx, id, &policy.quota).await?;
            let details =
                serde_json::json!({ "kind": name.kind, "issuer": name.issuer, "preset": policy.name });
            let entry = AuditEntry::system(AuditAction::TenantCreate, details);
            audit_entries::insert_for(&mut tx, id, &[entry]).await?;
            tracing::info!(tenant = %id, kind = %name.kind, preset = %policy.name, "tenant born");
        }
        // Whoever was faster has committed: the unique key made this transaction wait for it.
        let tenant = tenants::find(&mut tx, name).await?.ok_or(Error::NotFound("tenant"))?;
        tx.commit().await?;
        Ok(tenant)
    }
}
