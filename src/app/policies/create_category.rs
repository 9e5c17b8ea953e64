//! Adds a category to a tenant's policy.

use super::{Edit, StoredPolicy, admitted, apply, concluded};
use crate::{
    app::{App, Error},
    db::idempotency_keys::Method,
    domain::{
        caller::Caller,
        policy::{Policy, categories::CategoryChange},
    },
};

/// Adds a category. It counts for uploads that begin afterwards.
///
/// # Errors
/// `Invalid` with every violation, `NotAllowed`, `CategoryExists`, `EtagMismatch`.
pub async fn create_category(
    app: &App,
    caller: &Caller,
    asked: Edit<CategoryChange>,
) -> Result<StoredPolicy, Error> {
    let mut tx = admitted(app, caller).await?;
    let edit = |policy: Policy| policy.with_category(&asked.name, &asked.change);
    let edited =
        apply(app, &mut tx, caller, (&asked, Method::CreateCategory), edit).await.map(|(stored, _)| stored);
    concluded(app, caller, tx, edited).await
}
