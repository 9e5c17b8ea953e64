//! Resolves callers and their tenants, and manages the lifecycle of tenants.

mod create;
mod creation_rate;
mod delete;
mod directory;
pub mod erase;
mod erasures;
mod export;
pub mod first_call;
mod get;
mod list;
mod reclaim;
pub mod resolve;
mod resume;
pub mod settle;
mod suspend;
mod suspension;
mod update;

use std::sync::Arc;

pub(super) use directory::TenantDirectory;
pub(super) use suspension::TenantStates;

pub use self::{
    create::{NewTenant, create_tenant},
    delete::delete_tenant,
    erasures::{ErasureRequest, approve_erasure, list_erasures, request_erasure},
    export::{ExportRecord, export_tenant},
    get::get_tenant,
    list::list_tenants,
    reclaim::{ReclaimedBytes, reclaim_tenant},
    resume::resume_tenant,
    suspend::suspend_tenant,
    suspension::wait_until_suspended,
    update::{RateLimitsChange, RetainChange, TenantUpdate, update_tenant},
};
pub use crate::db::tenants::TenantName;

use super::{
    App, Error, Resource,
    idempotency::{self, RequestClaim},
};
use crate::{
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
        idempotency_keys::Method,
        tenant_records, tenants,
    },
    domain::{
        caller::{Actor, Caller, Operator, Origin, Role, TenantState},
        ids::{RequestId, TenantId},
        tenant_record::TenantRecord,
    },
};

/// Returns the system as a caller in a tenant, for background work.
///
/// # Errors
/// Returns `NotFound` if the tenant does not exist.
pub(super) async fn system_caller(app: &App, id: TenantId) -> Result<Caller, Error> {
    let mut tx = app.db.system_tx().await?;
    let tenant = tenants::get(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Caller {
        tenant: Arc::new(tenant.ok_or(Error::NotFound(Resource::Tenant))?),
        actor: Actor::system(),
        role: Role::Admin,
        groups: Vec::new(),
        scopes: Vec::new(),
        origin: Origin::default(),
        first_call: None,
    })
}

/// Returns an audit entry for an operator's action on a tenant.
pub(super) fn operator_entry(
    operator: &Operator,
    action: AuditAction,
    details: serde_json::Value,
) -> AuditEntry {
    AuditEntry {
        actor: operator.actor.clone(),
        actor_issuer: Some(operator.issuer.clone()),
        origin: operator.origin.clone(),
        ..AuditEntry::system(action, details)
    }
}

/// A change of a tenant's state between active and suspended.
struct StateChange {
    state: TenantState,
    reason: String,
    method: Method,
    action: AuditAction,
    request_id: Option<RequestId>,
}

/// Changes the state of a tenant. Returns a tenant that is already in this state unchanged.
///
/// # Errors
/// Returns `NotFound` or `TenantDeleted`.
async fn change_state(
    app: &App,
    operator: &Operator,
    id: TenantId,
    change: StateChange,
) -> Result<TenantRecord, Error> {
    if let Some(changed) = try_change_state(app, operator, id, &change).await? {
        return Ok(changed);
    }
    // Adopts the tenant only now: this needs a connection across tenants and further round trips, and the suspension of
    // an existing tenant must not wait for them while the server is busy.
    first_call::adopt_tenant(app, id).await?;
    try_change_state(app, operator, id, &change).await?.ok_or(Error::NotFound(Resource::Tenant))
}

/// Changes the state of a tenant in one transaction. Returns `None` if the tenant does not exist or is provisional.
async fn try_change_state(
    app: &App,
    operator: &Operator,
    id: TenantId,
    change: &StateChange,
) -> Result<Option<TenantRecord>, Error> {
    let mut tx = app.db.platform_tx(id, &Viewer::system()).await?;
    let changed = change_state_in_tx(app, &mut tx, operator, change).await;
    let changed = tx.finish(changed).await;
    app.tenants.invalidate(id).await;
    changed
}

async fn change_state_in_tx(
    app: &App,
    tx: &mut TenantTx,
    operator: &Operator,
    change: &StateChange,
) -> Result<Option<TenantRecord>, Error> {
    let payload = [operator.id().into_bytes(), change.reason.clone().into_bytes()];
    let attempt =
        match idempotency::claim_request(app, tx, change.request_id, change.method, &payload).await? {
            RequestClaim::Replay(response) => return Ok(Some(response)),
            RequestClaim::New(attempt) => attempt,
        };
    let Some(record) = tenant_records::find_for_update(tx).await? else { return Ok(None) };
    let record = match record.state {
        TenantState::Deleting | TenantState::Deleted => return Err(Error::TenantDeleted),
        state if state == change.state => record,
        _ => {
            // Wait for running commits, which still use the old state. Later commits see the new one.
            tenants::lock_file_creation(tx).await?;
            let details = serde_json::json!({ "reason": change.reason });
            audit_entries::insert(tx, &[operator_entry(operator, change.action, details)]).await?;
            tenant_records::set_state(tx, change.state, &change.reason).await?
        }
    };
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &record).await?;
    }
    Ok(Some(record))
}
