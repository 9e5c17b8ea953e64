//! Removes a category from a tenant's policy.

use super::{Edit, StoredPolicy, admitted, apply, concluded};
use crate::{
    app::{App, Error},
    db::{TenantTx, files, idempotency_keys::Method, tenants},
    domain::{caller::Caller, policy::Policy},
};

/// Removes a category that no file has, not even in the trash.
///
/// # Errors
/// `NotAllowed`, `NotFound`, `CategoryInUse`, `EtagMismatch`.
pub async fn delete_category(app: &App, caller: &Caller, asked: Edit<()>) -> Result<StoredPolicy, Error> {
    let mut tx = admitted(app, caller).await?;
    let deleted = run(app, &mut tx, caller, &asked).await;
    concluded(app, caller, tx, deleted).await
}

async fn run(app: &App, tx: &mut TenantTx, caller: &Caller, asked: &Edit<()>) -> Result<StoredPolicy, Error> {
    let edit = |policy: Policy| policy.without_category(&asked.name);
    let (stored, is_new) = apply(app, tx, caller, (asked, Method::DeleteCategory), edit).await?;
    // Behind the lock, so that what is being committed now is seen, and what comes later sees the new policy. A request that
    // was answered before is not judged again.
    if is_new {
        tenants::lock_births(tx).await?;
        if files::has_category(tx, &asked.name).await? {
            return Err(Error::CategoryInUse("files have it, perhaps in the trash; purge them first"));
        }
    }
    Ok(stored)
}
