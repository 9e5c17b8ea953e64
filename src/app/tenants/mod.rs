//! Who is calling, and for which tenant.

mod directory;
pub mod resolve;

use std::sync::Arc;

pub(super) use directory::TenantDirectory;

use super::{App, Error};
use crate::{
    db::tenants,
    domain::{
        caller::{Actor, Caller, Origin, Role},
        ids::TenantId,
    },
};

/// Strongroom itself, at work in one tenant.
pub(super) async fn system_caller(app: &App, id: TenantId) -> Result<Caller, Error> {
    let mut tx = app.db.system_tx().await?;
    let tenant = tenants::get(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Caller {
        tenant: Arc::new(tenant.ok_or(Error::NotFound("tenant"))?),
        actor: Actor::system(),
        role: Role::Admin,
        groups: Vec::new(),
        origin: Origin::default(),
    })
}
