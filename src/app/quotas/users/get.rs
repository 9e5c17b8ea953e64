//! Reads the quota of a user.

use super::unlimited;
use crate::{
    app::{
        App, Denial, Error, Principal, audit,
        quotas::resolve_tenant::{begin_tx, resolve_tenant},
    },
    db::{audit_entries::AuditAction, user_quotas},
    domain::{
        caller::{ActorKind, Role},
        ids::TenantId,
        user_quota::UserQuota,
        violations::Violations,
    },
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
    let user_id = resolve_user(app, principal, user_id).await?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let found = user_quotas::get(&mut tx, &user_id).await;
    Ok(tx.finish(found).await?.unwrap_or_else(|| unlimited(user_id)))
}

/// Returns the user whose quota is read: the caller, or the user that the request names.
async fn resolve_user(app: &App, principal: &Principal, named: Option<String>) -> Result<String, Error> {
    match (principal, named) {
        (Principal::Caller(caller), None) => Ok(caller.actor.id.clone()),
        (Principal::Caller(caller), Some(named)) => {
            let may_read_all = caller.role >= Role::Admin || caller.actor.kind == ActorKind::Service;
            if may_read_all || named == caller.actor.id {
                return Ok(named);
            }
            let error = Error::NotAllowed(Denial::QuotasOfOthers);
            Err(audit::record_denial(app, caller, AuditAction::UserQuotaRead, None, error).await)
        }
        (Principal::Operator(_), None) => {
            Err(Violations::one("user_id", "is required: an operator has no quota").into())
        }
        (Principal::Operator(_), Some(named)) => Ok(named),
    }
}
