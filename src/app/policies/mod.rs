//! The policy of a tenant, and edits of its categories by the tenant's admins.
//!
//! An edit locks the tenant's row. The deletion of a category also takes the exclusive lock that every commit
//! of a file holds shared, so that no file is created in the category at the same time. This process uses the
//! new policy at once; the others use it when their cached tenants expire, see `tenants/directory.rs`.

mod create_category;
mod delete_category;
mod get;
mod update_category;

pub use self::{
    create_category::create_category, delete_category::delete_category, get::get_policy,
    update_category::update_category,
};
pub use crate::db::tenants::StoredPolicy;

use super::{
    App, CategoryUse, Error, Resource, access, audit,
    idempotency::{self, RequestClaim},
    preconditions::check_etag,
};
use crate::{
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        idempotency_keys::Method,
        tenants,
    },
    domain::{
        caller::Caller,
        ids::RequestId,
        policy::{Policy, categories::CategoryError},
    },
};

/// An edit of a category.
#[derive(Debug, Clone)]
pub struct CategoryEdit<T> {
    /// The name of the category.
    pub name: String,
    pub change: T,
    /// The expected etag of the policy. Empty means no check.
    pub if_etag: String,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// Starts an edit: checks that the caller is an admin and opens the transaction.
async fn begin_edit(app: &App, caller: &Caller) -> Result<TenantTx, Error> {
    if let Err(error) = access::check_is_admin(caller) {
        return Err(audit::record_denial(app, caller, AuditAction::PolicyUpdate, None, error).await);
    }
    Ok(app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?)
}

/// Applies an edit with `change_policy`, unless its request id was already executed. Returns the policy and
/// whether the edit is new.
async fn apply_edit<T: serde::Serialize>(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    edit: &CategoryEdit<T>,
    method: Method,
    change_policy: impl FnOnce(Policy) -> Result<Policy, CategoryError>,
) -> Result<(StoredPolicy, bool), Error> {
    let fields = serde_json::to_vec(&(&edit.change, &edit.if_etag)).map_err(Error::internal)?;
    let payload = [caller.actor.id.clone().into_bytes(), edit.name.clone().into_bytes(), fields];
    let attempt = match idempotency::claim_request(app, tx, edit.request_id, method, &payload).await? {
        RequestClaim::Replay(response) => return Ok((response, false)),
        RequestClaim::New(attempt) => attempt,
    };
    let stored = tenants::get_policy_for_update(tx).await?;
    check_etag(&edit.if_etag, &stored.etag())?;
    let edited = change_policy(stored.policy).map_err(|error| edit_error(error, &edit.name))?;
    let mut entry = audit::new_entry(caller, AuditAction::PolicyUpdate);
    entry.details = serde_json::json!({
        "method": method.as_str(), "category": edit.name, "change": edit.change,
    });
    audit_entries::insert(tx, &[entry]).await?;
    let stored = tenants::set_policy(tx, edited).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &stored).await?;
    }
    Ok((stored, true))
}

fn edit_error(error: CategoryError, name: &str) -> Error {
    match error {
        CategoryError::Invalid(violations) => violations.into(),
        CategoryError::Exists => Error::CategoryExists(name.to_owned()),
        CategoryError::Missing => Error::NotFound(Resource::Category),
        CategoryError::IsDefault => Error::CategoryInUse(CategoryUse::Default),
    }
}

/// Ends an edit: finishes the transaction and invalidates the cached tenant of this process.
async fn finish_edit(
    app: &App,
    caller: &Caller,
    tx: TenantTx,
    outcome: Result<StoredPolicy, Error>,
) -> Result<StoredPolicy, Error> {
    let outcome = tx.finish(outcome).await;
    // Invalidate also on errors, because the outcome of the commit may be unknown.
    app.tenants.invalidate(caller.tenant_id()).await;
    outcome
}
