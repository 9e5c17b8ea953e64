//! Reports the usage of a tenant, from counters that commits maintain.

use super::{get::redact_pending_deletion, resolve_tenant::resolve_tenant};
use crate::{
    app::{App, Error, Principal},
    db::{DbError, TenantTx, quotas, usage_counters},
    domain::{clock::Timestamp, ids::TenantId, quota::Quota},
};

pub use crate::db::usage_counters::UsageCounter as UsageEntry;

/// The usage of a tenant.
#[derive(Debug, Clone)]
pub struct Usage {
    /// The counters, ordered by category and kind.
    pub counters: Vec<UsageEntry>,
    /// The quota at the same time.
    pub quota: Quota,
    /// The time of the report, by the database's clock.
    pub time: Timestamp,
}

/// Returns the usage of the caller's tenant, or of the tenant that an operator names.
///
/// # Errors
/// Returns `NotFound` for another tenant, and `Invalid` if an operator names none.
pub async fn get_usage(app: &App, principal: &Principal, tenant: Option<TenantId>) -> Result<Usage, Error> {
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let mut tx = app.db.tenant_tx(tenant, &viewer).await?;
    let usage = get_usage_in_tx(&mut tx).await;
    let usage = tx.finish(usage).await?;
    Ok(Usage { quota: redact_pending_deletion(principal, usage.quota), ..usage })
}

async fn get_usage_in_tx(tx: &mut TenantTx) -> Result<Usage, DbError> {
    Ok(Usage {
        counters: usage_counters::list(tx).await?,
        quota: quotas::get(tx).await?,
        time: tx.now().await?,
    })
}
