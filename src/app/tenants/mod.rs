//! Who is calling, and for which tenant; and the life of a tenant, which operators lead it through.

pub mod create;
pub mod delete;
mod directory;
pub mod erase;
pub mod export;
pub mod get;
pub mod list;
pub mod resolve;
pub mod resume;
pub mod suspend;
pub mod update;

use std::sync::Arc;

pub(super) use directory::TenantDirectory;

pub use crate::db::tenants::TenantName;

use super::{
    App, Error,
    idempotency::{self, Begun},
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

/// Strongroom itself, at work in one tenant.
pub(super) async fn system_caller(app: &App, id: TenantId) -> Result<Caller, Error> {
    let mut tx = app.db.system_tx().await?;
    let tenant = tenants::get(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Caller {
        tenant: Arc::new(tenant.ok_or(Error::NotFound("tenant"))?),
        actor: Actor::system(),
        role: Role::Admin,
        groups: Vec::new(),
        origin: Origin::default(),
    })
}

/// An entry about what an operator does to a tenant.
fn entry(operator: &Operator, action: AuditAction, details: serde_json::Value) -> AuditEntry {
    AuditEntry {
        actor: operator.actor.clone(),
        origin: operator.origin.clone(),
        ..AuditEntry::system(action, details)
    }
}

/// A move of a tenant between active and suspended.
struct Move {
    to: TenantState,
    reason: String,
    method: Method,
    action: AuditAction,
    request_id: Option<RequestId>,
}

/// Moves a tenant. One that is there already is answered as it is.
async fn moved(app: &App, operator: &Operator, id: TenantId, asked: Move) -> Result<TenantRecord, Error> {
    get::get(app, operator, id).await?;
    let mut tx = app.db.tenant_tx(id, &Viewer::system()).await?;
    let moved = apply(app, &mut tx, operator, asked).await;
    let moved = tx.finish(moved).await;
    app.tenants.forget(id).await;
    moved
}

async fn apply(
    app: &App,
    tx: &mut TenantTx,
    operator: &Operator,
    asked: Move,
) -> Result<TenantRecord, Error> {
    let payload = [operator.actor.id.clone().into_bytes(), asked.reason.clone().into_bytes()];
    let attempt = match idempotency::begin(app, tx, asked.request_id, asked.method, &payload).await? {
        Begun::Replay(answer) => return Ok(answer),
        Begun::Fresh(attempt) => attempt,
    };
    let record = tenant_records::get_for_update(tx).await?;
    let record = match record.state {
        TenantState::Deleting | TenantState::Deleted => return Err(Error::TenantDeleted),
        state if state == asked.to => record,
        _ => {
            // What is being committed now counts as before; what comes later sees the new state.
            tenants::lock_births(tx).await?;
            let details = serde_json::json!({ "reason": asked.reason });
            audit_entries::insert(tx, &[entry(operator, asked.action, details)]).await?;
            tenant_records::set_state(tx, asked.to, &asked.reason).await?
        }
    };
    if let Some(attempt) = attempt {
        attempt.record(tx, &record).await?;
    }
    Ok(record)
}
