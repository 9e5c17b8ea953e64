//! Whose quota a request is about: the caller's own tenant, or the one an operator names.

use crate::{
    app::{App, Error, Principal},
    db::{Viewer, tenants},
    domain::{ids::TenantId, violations::Violations},
};

/// The tenant, and the eyes to look at it with.
pub(super) async fn subject(
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
            let exists = tenants::get(&mut tx, named).await?.is_some();
            tx.commit().await?;
            if exists { Ok((named, Viewer::system())) } else { Err(Error::NotFound("tenant")) }
        }
    }
}
