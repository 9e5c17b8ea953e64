//! Reads a tenant's policy.

use super::StoredPolicy;
use crate::{
    app::{App, Error},
    db::{Viewer, tenants},
    domain::caller::Caller,
};

/// The policy of the caller's tenant, as it stands in its row now.
///
/// # Errors
/// When the database does not answer.
pub async fn get(app: &App, caller: &Caller) -> Result<StoredPolicy, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let policy = tenants::policy(&mut tx).await;
    Ok(tx.finish(policy).await?)
}
