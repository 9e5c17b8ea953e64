//! Resolves the tenant of a quota request.

use crate::{
    app::{App, Error, Principal, Resource},
    db::{DbError, TenantTx, Viewer, tenants},
    domain::{caller::TenantState, ids::TenantId, violations::Violations},
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
