//! Reads a tenant's policy.

use super::StoredPolicy;
use crate::{
    app::{App, Error},
    db::{Viewer, tenants},
    domain::caller::Caller,
};

/// Returns the current policy of the caller's tenant from the database, not from the cache.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn get_policy(app: &App, caller: &Caller) -> Result<StoredPolicy, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let policy = tenants::get_policy(&mut tx).await;
    Ok(tx.finish(policy).await?)
}
