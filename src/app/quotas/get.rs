//! Reads a quota.

use super::resolve_tenant::{begin_tx, resolve_tenant};
use crate::{
    app::{App, Error, Principal},
    db::quotas,
    domain::{caller::Role, ids::TenantId, quota::Quota},
};

/// Hides the bytes of purged files from members, who may not have been able to see those files, and addresses.
fn redact_quota(principal: &Principal, quota: Quota) -> Quota {
    match principal {
        Principal::Caller(caller) if caller.role < Role::Admin => {
            Quota { pending_deletion_bytes: 0, alert_emails: Vec::new(), ..quota }
        }
        Principal::Caller(_) | Principal::Operator(_) => quota,
    }
}

/// Returns the quota of the caller's tenant, or of the tenant that an operator names.
///
/// # Errors
/// Returns `NotFound` for another tenant, and `Invalid` if an operator names none.
pub async fn get_quota(app: &App, principal: &Principal, tenant: Option<TenantId>) -> Result<Quota, Error> {
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let quota = quotas::get(&mut tx).await;
    Ok(redact_quota(principal, tx.finish(quota).await?))
}
