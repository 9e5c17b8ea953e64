//! Begins the deletion of a tenant. The work itself is done in the background, see `erase.rs`.

use super::{entry, get};
use crate::{
    app::{
        App, Error,
        idempotency::{self, Begun},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        idempotency_keys::Method,
        tenant_records, tenants,
    },
    domain::{
        caller::{Operator, TenantState},
        ids::{RequestId, TenantId},
        tenant_record::{DeletionPlan, TenantRecord},
    },
};

/// What was begun, or would be.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// The tenant.
    pub tenant: TenantRecord,
    /// What there is to remove, where nothing has begun yet.
    pub plan: DeletionPlan,
}

/// Begins to delete a tenant: from now on its callers are refused, and its rows and bytes are removed in the background. A
/// tenant that is being deleted, or was, is answered as it is. A dry run only tells what there is.
///
/// # Errors
/// `NotFound`; `TenantRetained` while any of its files must be kept.
pub async fn delete(
    app: &App,
    operator: &Operator,
    id: TenantId,
    (is_dry_run, request_id): (bool, Option<RequestId>),
) -> Result<Deleted, Error> {
    get::get(app, operator, id).await?;
    let mut tx = app.db.tenant_tx(id, &Viewer::system()).await?;
    let deleted = run(app, &mut tx, operator, is_dry_run, request_id).await;
    let deleted = tx.finish(deleted).await;
    app.tenants.forget(id).await;
    deleted
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    operator: &Operator,
    is_dry_run: bool,
    request_id: Option<RequestId>,
) -> Result<Deleted, Error> {
    let record = tenant_records::get_for_update(tx).await?;
    if matches!(record.state, TenantState::Deleting | TenantState::Deleted) {
        return Ok(Deleted { tenant: record, plan: DeletionPlan::default() });
    }
    if is_dry_run {
        let plan = tenant_records::plan_deletion(tx).await?;
        return Ok(Deleted { tenant: record, plan });
    }
    // Its answer is the tenant's state, which does not go back; the key only finds an id that was used for something else.
    let payload = [operator.actor.id.clone().into_bytes()];
    let begun = idempotency::begin(app, tx, request_id, Method::DeleteTenant, &payload).await?;
    if let Begun::Replay(()) = begun {
        return Err(Error::internal("a deletion was answered, and its tenant is there"));
    }
    // Reads all of its files, so before anybody waits for it: what is committed meanwhile is removed and not counted here.
    let plan = tenant_records::plan_deletion(tx).await?;
    check_kept(&plan)?;
    // What is being committed now must not be kept either; what comes later is refused.
    tenants::lock_births(tx).await?;
    check_retention(tx).await?;
    let details = serde_json::json!({ "step": "begun", "plan": plan });
    audit_entries::insert(tx, &[entry(operator, AuditAction::TenantDelete, details)]).await?;
    let tenant = tenant_records::begin_deletion(tx, &plan).await?;
    if let Begun::Fresh(Some(attempt)) = begun {
        attempt.record(tx, &()).await?;
    }
    Ok(Deleted { tenant, plan })
}

/// Whether nothing says that a file of the tenant must be kept. What stands in the way is counted only where something does.
pub(super) async fn check_retention(tx: &mut TenantTx) -> Result<(), Error> {
    match tenant_records::keeps_files(tx).await? {
        true => check_kept(&tenant_records::plan_deletion(tx).await?),
        false => Ok(()),
    }
}

fn check_kept(plan: &DeletionPlan) -> Result<(), Error> {
    if plan.retained_file_count == 0 {
        return Ok(());
    }
    Err(Error::TenantRetained {
        file_count: plan.retained_file_count,
        held_file_count: plan.held_file_count,
        until: plan.retained_until,
    })
}
