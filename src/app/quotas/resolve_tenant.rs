//! Resolves the tenant of a quota request, and the user whose records it reads.

use crate::{
    app::{App, Denial, Error, Principal, Resource, audit},
    db::{DbError, TenantTx, Viewer, audit_entries::AuditAction, tenants},
    domain::{
        caller::{ActorKind, Role, TenantState},
        ids::TenantId,
        violations::Violations,
    },
};

/// Returns the caller's own tenant, or the tenant that an operator names, and the viewer for reading it.
///
/// # Errors
/// Returns `NotFound` for another, unknown or deleted tenant, and `Invalid` if an operator names none.
pub(in crate::app) async fn resolve_tenant(
    app: &App,
    principal: &Principal,
    named: Option<TenantId>,
) -> Result<(TenantId, Viewer), Error> {
    match (principal, named) {
        (Principal::Caller(caller), None) => Ok((caller.tenant_id(), Viewer::from_caller(caller))),
        (Principal::Caller(caller), Some(named)) if named == caller.tenant_id() => {
            Ok((named, Viewer::from_caller(caller)))
        }
        (Principal::Caller(_), Some(_)) => Err(Error::NotFound(Resource::Tenant)),
        (Principal::Operator(_), None) => {
            Err(Violations::one("tenant_id", "is required: an operator belongs to no tenant").into())
        }
        (Principal::Operator(_), Some(named)) => {
            let mut tx = app.db.operator_tx().await?;
            let tenant = tenants::get(&mut tx, named).await?;
            tx.commit().await?;
            let exists = tenant
                .is_some_and(|tenant| matches!(tenant.state, TenantState::Active | TenantState::Suspended));
            if exists { Ok((named, Viewer::system())) } else { Err(Error::NotFound(Resource::Tenant)) }
        }
    }
}

/// Begins a transaction in the tenant of a request. That of an operator takes no connection of the tenant's share.
pub(in crate::app) async fn begin_tx(
    app: &App,
    principal: &Principal,
    tenant: TenantId,
    viewer: &Viewer,
) -> Result<TenantTx, DbError> {
    match principal {
        Principal::Caller(_) => app.db.tenant_tx(tenant, viewer).await,
        Principal::Operator(_) => app.db.platform_tx(tenant, viewer).await,
    }
}

/// The records of users that a request reads.
pub(in crate::app) struct UserRecords {
    /// The action of the audit entry about a denial.
    pub(in crate::app) action: AuditAction,
    pub(in crate::app) denial: Denial,
    /// Why an operator must name a user.
    pub(in crate::app) operator_problem: &'static str,
}

/// Returns the user whose records are read: the caller, or the user that the request names. Admins and services of the
/// tenant, and operators, may name any user.
///
/// # Errors
/// Returns `NotAllowed` for the records of another user, and `Invalid` if an operator names none.
pub(in crate::app) async fn resolve_user(
    app: &App,
    principal: &Principal,
    named: Option<String>,
    records: UserRecords,
) -> Result<String, Error> {
    match (principal, named) {
        (Principal::Caller(caller), None) => Ok(caller.actor.id.clone()),
        (Principal::Caller(caller), Some(named)) => {
            let may_read_all = caller.role >= Role::Admin || caller.actor.kind == ActorKind::Service;
            if may_read_all || named == caller.actor.id {
                return Ok(named);
            }
            let error = Error::NotAllowed(records.denial);
            Err(audit::record_denial(app, caller, records.action, None, error).await)
        }
        (Principal::Operator(_), None) => Err(Violations::one("user_id", records.operator_problem).into()),
        (Principal::Operator(_), Some(named)) => Ok(named),
    }
}
