//! Deletes a category from a tenant's policy.

use super::{CategoryEdit, StoredPolicy, apply_edit, begin_edit, finish_edit};
use crate::{
    app::{App, CategoryUse, Error},
    db::{TenantTx, files, idempotency_keys::Method, tenants},
    domain::{caller::Caller, policy::Policy},
};

/// Deletes a category without files, including files in the trash.
///
/// # Errors
/// Returns `NotAllowed`, `NotFound`, `CategoryInUse` or `EtagMismatch`.
pub async fn delete_category(
    app: &App,
    caller: &Caller,
    edit: CategoryEdit<()>,
) -> Result<StoredPolicy, Error> {
    let mut tx = begin_edit(app, caller).await?;
    let deleted = delete_category_in_tx(app, &mut tx, caller, &edit).await;
    finish_edit(app, caller, tx, deleted).await
}

async fn delete_category_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    edit: &CategoryEdit<()>,
) -> Result<StoredPolicy, Error> {
    let change_policy = |policy: Policy| policy.without_category(&edit.name);
    let (stored, is_new) = apply_edit(app, tx, caller, edit, Method::DeleteCategory, change_policy).await?;
    // Check for files under the lock: running commits finish first, and later commits use the new policy. A
    // replayed request is not checked again.
    if is_new {
        tenants::lock_file_creation(tx).await?;
        if files::is_category_used(tx, &edit.name).await? {
            return Err(Error::CategoryInUse(CategoryUse::Files));
        }
    }
    Ok(stored)
}
