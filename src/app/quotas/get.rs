//! Reads a quota.

use super::subject::subject;
use crate::{
    app::{App, Error, Principal},
    db::quotas,
    domain::{ids::TenantId, quota::Quota},
};

/// The quota of the caller's tenant, or of the one that an operator names.
///
/// # Errors
/// `NotFound` for another tenant; `Invalid` for an operator who names none.
pub async fn get(app: &App, principal: &Principal, tenant: Option<TenantId>) -> Result<Quota, Error> {
    let (tenant, viewer) = subject(app, principal, tenant).await?;
    let mut tx = app.db.tenant_tx(tenant, &viewer).await?;
    let quota = quotas::get(&mut tx).await;
    Ok(tx.finish(quota).await?)
}
