//! Changes a category of a tenant's policy.

use super::{CategoryEdit, StoredPolicy, apply_edit, begin_edit, finish_edit};
use crate::{
    app::{App, Error},
    db::idempotency_keys::Method,
    domain::{
        caller::Caller,
        policy::{Policy, categories::CategoryChange},
    },
};

/// Changes the rules of a category for uploads that start afterwards. Existing files do not change.
///
/// # Errors
/// Returns `Invalid` with every violation, `NotAllowed`, `NotFound` or `EtagMismatch`.
pub async fn update_category(
    app: &App,
    caller: &Caller,
    edit: CategoryEdit<CategoryChange>,
) -> Result<StoredPolicy, Error> {
    let mut tx = begin_edit(app, caller).await?;
    let change_policy = |policy: Policy| policy.with_changed_category(&edit.name, &edit.change);
    let edited = apply_edit(app, &mut tx, caller, &edit, Method::UpdateCategory, change_policy)
        .await
        .map(|(stored, _)| stored);
    finish_edit(app, caller, tx, edited).await
}
