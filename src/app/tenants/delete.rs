//! Starts the deletion of a tenant. Background work erases its data, see `erase.rs`.

use super::{first_call::adopt_tenant, operator_entry};
use crate::{
    app::{
        App, Error, Resource,
        idempotency::{self, RequestClaim},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        erasures,
        idempotency_keys::Method,
        tenant_records, tenants,
    },
    domain::{
        caller::{Operator, TenantState},
        ids::{RequestId, TenantId},
        tenant_record::{DeletionPlan, TenantRecord},
    },
};

/// A started or planned deletion.
#[derive(Debug, Clone)]
pub struct TenantDeletion {
    pub tenant: TenantRecord,
    /// The data to delete. Empty if the deletion had already started.
    pub plan: DeletionPlan,
}

/// Starts the deletion of a tenant. From then on its callers are rejected, and its rows and bytes are erased
/// in the background. Returns a tenant that was deleted or is being deleted unchanged. A dry run only returns
/// the plan.
///
/// # Errors
/// Returns `NotFound`, or `TenantRetained` if any of its files must be kept.
pub async fn delete_tenant(
    app: &App,
    operator: &Operator,
    id: TenantId,
    is_dry_run: bool,
    request_id: Option<RequestId>,
) -> Result<TenantDeletion, Error> {
    app.owners.check_primary()?;
    if let Some(deletion) = try_delete(app, operator, id, is_dry_run, request_id).await? {
        return Ok(deletion);
    }
    if is_dry_run {
        return Err(Error::NotFound(Resource::Tenant));
    }
    // Adopts the tenant only now, as for its suspension: the deletion of an existing tenant must not wait for a
    // connection across tenants.
    adopt_tenant(app, id).await?;
    let deletion = try_delete(app, operator, id, is_dry_run, request_id).await?;
    deletion.ok_or(Error::NotFound(Resource::Tenant))
}

/// Deletes a tenant in one transaction. Returns `None` if the tenant does not exist or is provisional.
async fn try_delete(
    app: &App,
    operator: &Operator,
    id: TenantId,
    is_dry_run: bool,
    request_id: Option<RequestId>,
) -> Result<Option<TenantDeletion>, Error> {
    let mut tx = app.db.platform_tx(id, &Viewer::system()).await?;
    let deleted = delete_in_tx(app, &mut tx, operator, is_dry_run, request_id).await;
    let deleted = tx.finish(deleted).await;
    app.tenants.invalidate(id).await;
    deleted
}

async fn delete_in_tx(
    app: &App,
    tx: &mut TenantTx,
    operator: &Operator,
    is_dry_run: bool,
    request_id: Option<RequestId>,
) -> Result<Option<TenantDeletion>, Error> {
    let Some(record) = tenant_records::find_for_update(tx).await? else { return Ok(None) };
    if matches!(record.state, TenantState::Deleting | TenantState::Deleted) {
        return Ok(Some(TenantDeletion { tenant: record, plan: DeletionPlan::default() }));
    }
    if is_dry_run {
        let plan = tenant_records::plan_deletion(tx).await?;
        return Ok(Some(TenantDeletion { tenant: record, plan }));
    }
    // The response is the state of the tenant, which never reverts, so nothing needs to be replayed. The
    // request id is claimed only to detect its reuse for another request.
    let payload = [operator.id().into_bytes()];
    let claim = idempotency::claim_request(app, tx, request_id, Method::DeleteTenant, &payload).await?;
    if let RequestClaim::Replay(()) = claim {
        return Err(Error::internal("deletion was recorded, but the tenant is not deleted"));
    }
    // This reads all files of the tenant, so it runs before the lock. Files that are committed after it are
    // deleted too, but not counted in the plan.
    let plan = tenant_records::plan_deletion(tx).await?;
    let erasure = erasures::mark_used(tx, None).await?;
    check_plan(&plan, erasure.is_some())?;
    // Wait for running commits, then check again: they may have added files that must be kept. Later commits
    // are rejected.
    tenants::lock_file_creation(tx).await?;
    check_tenant_retention(tx).await?;
    let erasure = erasure.map(|erasure| erasure.audit_details());
    let details = serde_json::json!({ "step": "started", "plan": plan, "erasure": erasure });
    audit_entries::insert(tx, &[operator_entry(operator, AuditAction::TenantDelete, details)]).await?;
    let tenant = tenant_records::begin_deletion(tx, &plan).await?;
    if let RequestClaim::New(Some(attempt)) = claim {
        attempt.record_response(tx, &()).await?;
    }
    Ok(Some(TenantDeletion { tenant, plan }))
}

/// Checks that no file of the tenant must be kept. Counts the files that must be kept only if there are any. An
/// erasure in use overrides their retention, but no legal hold.
///
/// # Errors
/// Returns `TenantRetained` if there are.
pub(super) async fn check_tenant_retention(tx: &mut TenantTx) -> Result<(), Error> {
    match tenant_records::has_protected_files(tx).await? {
        true => {
            let is_erasure = erasures::is_tenant_erasure_used(tx).await?;
            check_plan(&tenant_records::plan_deletion(tx).await?, is_erasure)
        }
        false => Ok(()),
    }
}

fn check_plan(plan: &DeletionPlan, is_erasure: bool) -> Result<(), Error> {
    let file_count = if is_erasure { plan.held_file_count } else { plan.retained_file_count };
    if file_count == 0 {
        return Ok(());
    }
    Err(Error::TenantRetained {
        file_count,
        held_file_count: plan.held_file_count,
        until: plan.retained_until.filter(|_| !is_erasure),
    })
}
