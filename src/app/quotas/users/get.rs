//! Reads the quota of a user.

use super::unlimited;
use crate::{
    app::{
        App, Denial, Error, Principal,
        quotas::resolve_tenant::{UserRecords, begin_tx, resolve_tenant, resolve_user},
    },
    db::{audit_entries::AuditAction, user_quotas},
    domain::{ids::TenantId, user_quota::UserQuota},
};

/// Returns the quota of a user; by default that of the caller. Without limits there is no usage either: usage is counted
/// from the first limit on.
///
/// # Errors
/// Returns `NotFound` for another tenant, `NotAllowed` if the caller may not read the quota of this user, and `Invalid`
/// if an operator names no user.
pub async fn get_user_quota(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    user_id: Option<String>,
) -> Result<UserQuota, Error> {
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let records = UserRecords {
        action: AuditAction::UserQuotaRead,
        denial: Denial::QuotasOfOthers,
        operator_problem: "is required: an operator has no quota",
    };
    let user_id = resolve_user(app, principal, user_id, records).await?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let found = user_quotas::get(&mut tx, &user_id).await;
    Ok(tx.finish(found).await?.unwrap_or_else(|| unlimited(user_id)))
}
