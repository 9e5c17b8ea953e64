//! Changes a category of a tenant's policy.

use super::{Edit, StoredPolicy, admitted, apply, concluded};
use crate::{
    app::{App, Error},
    db::idempotency_keys::Method,
    domain::{
        caller::Caller,
        policy::{Policy, categories::CategoryChange},
    },
};

/// Changes what a category says of uploads that begin afterwards. Files that are there stay as they are.
///
/// # Errors
/// `Invalid` with every violation, `NotAllowed`, `NotFound`, `EtagMismatch`.
pub async fn update_category(
    app: &App,
    caller: &Caller,
    asked: Edit<CategoryChange>,
) -> Result<StoredPolicy, Error> {
    let mut tx = admitted(app, caller).await?;
    let edit = |policy: Policy| policy.with_changed_category(&asked.name, &asked.change);
    let edited =
        apply(app, &mut tx, caller, (&asked, Method::UpdateCategory), edit).await.map(|(stored, _)| stored);
    concluded(app, caller, tx, edited).await
}
