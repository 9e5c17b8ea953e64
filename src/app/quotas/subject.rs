//! Whose quota a request is about: the caller's own tenant, or the one an operator names.

use crate::{
    app::{App, Error, Principal},
    db::{Viewer, tenants},
    domain::{caller::TenantState, ids::TenantId, violations::Violations},
};

/// The tenant, and the eyes to look at it with.
pub(in crate::app) async fn subject(
    app: &App,
    principal: &Principal,
    named: Option<TenantId>,
) -> Result<(TenantId, Viewer), Error> {
    match (principal, named) {
        (Principal::Caller(caller), None) => Ok((caller.tenant_id(), Viewer::caller(caller))),
        (Principal::Caller(caller), Some(named)) if named == caller.tenant_id() => {
            Ok((named, Viewer::caller(caller)))
        }
        (Principal::Caller(_), Some(_)) => Err(Error::NotFound("tenant")),
        (Principal::Operator(_), None) => {
            Err(Violations::one("tenant_id", "is required: an operator belongs to no tenant").into())
        }
        (Principal::Operator(_), Some(named)) => {
            let mut tx = app.db.system_tx().await?;
            let tenant = tenants::get(&mut tx, named).await?;
            tx.commit().await?;
            let is_there = tenant
                .is_some_and(|tenant| matches!(tenant.state, TenantState::Active | TenantState::Suspended));
            if is_there { Ok((named, Viewer::system())) } else { Err(Error::NotFound("tenant")) }
        }
    }
}
