//! Finds a tenant by what the identity provider calls it, and lets it be born at first sight.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

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
        ids::TenantId,
        policy::{Policy, UnknownPreset},
    },
};

/// How many tenants are remembered, and for how long: their policies change rarely, and a change is seen after this.
const CACHE_CAPACITY: u64 = 10_000;
const CACHE_SECONDS: u64 = 10;

/// The directory, with a short memory.
pub(in crate::app) struct TenantDirectory {
    cache: Cache<TenantName, Arc<Tenant>>,
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
        Ok(Self {
            cache: Cache::builder()
                .max_capacity(CACHE_CAPACITY)
                .time_to_live(Duration::from_secs(CACHE_SECONDS))
                .build(),
            preset: Policy::preset(&config.preset)?,
            presets,
            creates: config.create_at_first_sight,
        })
    }

    /// The tenant of this name. One that is not there is born now, where the configuration lets it.
    pub(in crate::app) async fn get(&self, app: &App, name: TenantName) -> Result<Arc<Tenant>, Error> {
        if let Some(tenant) = self.cache.get(&name).await {
            return Ok(tenant);
        }
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
        self.cache.insert(name, Arc::clone(&tenant)).await;
        Ok(tenant)
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
