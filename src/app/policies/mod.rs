//! The tenant's own copy of its policy, and the categories that its admins edit in it.
//!
//! Who edits holds the tenant's row, and alone the lock that every commit of a file holds shared: no file is born into a
//! category while it is being removed. This replica goes by the new policy at once; the others after as long as they
//! remember a tenant, see `tenants/directory.rs`.

pub mod create_category;
pub mod delete_category;
pub mod get;
pub mod update_category;

pub use crate::db::tenants::StoredPolicy;

use super::{
    App, Error, access, audit,
    idempotency::{self, Begun},
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

/// What every edit carries.
#[derive(Debug, Clone)]
pub struct Edit<T> {
    /// Which category.
    pub name: String,
    /// What to do with it.
    pub change: T,
    /// The etag that the policy must still have, or empty.
    pub if_etag: String,
    /// Makes a retry safe.
    pub request_id: Option<RequestId>,
}

/// What an edit begins with: the caller is an admin.
async fn admitted(app: &App, caller: &Caller) -> Result<TenantTx, Error> {
    if let Err(why) = access::can_administer(caller) {
        return Err(audit::denied(app, caller, AuditAction::PolicyUpdate, None, why).await);
    }
    Ok(app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?)
}

/// Makes an edit unless its request id was answered before, and answers whether it did: `edit` says what becomes of the
/// policy.
async fn apply<T: serde::Serialize>(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    (asked, method): (&Edit<T>, Method),
    edit: impl FnOnce(Policy) -> Result<Policy, CategoryError>,
) -> Result<(StoredPolicy, bool), Error> {
    let said = serde_json::to_vec(&(&asked.change, &asked.if_etag)).map_err(Error::internal)?;
    let payload = [caller.actor.id.clone().into_bytes(), asked.name.clone().into_bytes(), said];
    let attempt = match idempotency::begin(app, tx, asked.request_id, method, &payload).await? {
        Begun::Replay(answer) => return Ok((answer, false)),
        Begun::Fresh(attempt) => attempt,
    };
    let stored = tenants::policy_for_update(tx).await?;
    check_etag(&asked.if_etag, &stored.etag())?;
    let edited = edit(stored.policy).map_err(|why| refusal(why, &asked.name))?;
    let mut entry = audit::entry(caller, AuditAction::PolicyUpdate, None);
    entry.details = serde_json::json!({
        "method": method.as_str(), "category": asked.name, "change": asked.change,
    });
    audit_entries::insert(tx, &[entry]).await?;
    let stored = tenants::set_policy(tx, edited).await?;
    if let Some(attempt) = attempt {
        attempt.record(tx, &stored).await?;
    }
    Ok((stored, true))
}

fn refusal(why: CategoryError, name: &str) -> Error {
    match why {
        CategoryError::Invalid(violations) => violations.into(),
        CategoryError::Exists => Error::CategoryExists(name.to_owned()),
        CategoryError::Missing => Error::NotFound("category"),
        CategoryError::IsDefault => {
            Error::CategoryInUse("it is the default; make another one the default first")
        }
    }
}

/// What an edit ends with: the transaction, and this replica's memory.
async fn concluded(
    app: &App,
    caller: &Caller,
    tx: TenantTx,
    outcome: Result<StoredPolicy, Error>,
) -> Result<StoredPolicy, Error> {
    let outcome = tx.finish(outcome).await;
    // Also when the outcome is not known.
    app.tenants.forget(caller.tenant_id()).await;
    outcome
}
