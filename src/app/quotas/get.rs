//! Reads a quota.

use super::resolve_tenant::resolve_tenant;
use crate::{
    app::{App, Error, Principal},
    db::quotas,
    domain::{ids::TenantId, quota::Quota},
};

/// Returns the quota of the caller's tenant, or of the tenant that an operator names.
///
/// # Errors
/// Returns `NotFound` for another tenant, and `Invalid` if an operator names none.
pub async fn get_quota(app: &App, principal: &Principal, tenant: Option<TenantId>) -> Result<Quota, Error> {
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let mut tx = app.db.tenant_tx(tenant, &viewer).await?;
    let quota = quotas::get(&mut tx).await;
    Ok(tx.finish(quota).await?)
}
