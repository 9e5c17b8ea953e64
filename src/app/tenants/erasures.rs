//! Erasures for a legal duty: one operator requests them with a reason, another one approves them. An approved
//! erasure lets `DeleteTenant` delete a tenant, or `PurgeFile` purge a file, before the retention of its files
//! ends. It never overrides a legal hold, and it expires.

use super::{get, operator_entry};
use crate::{
    app::{
        App, Denial, Error, Resource,
        idempotency::{self, RequestClaim},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
        erasures::{self, NewErasure},
        files,
        idempotency_keys::Method,
        tenant_records,
    },
    domain::{
        caller::{Operator, TenantState},
        erasure::{Erasure, REASON_CHARACTERS_MAX},
        ids::{ErasureId, FileId, RequestId, TenantId},
        text,
        violations::Violations,
    },
};

/// The number of erasures that a list contains at most.
const ERASURES_MAX: i64 = 100;

/// A request for an erasure.
#[derive(Debug, Clone)]
pub struct ErasureRequest {
    pub tenant: TenantId,
    /// The file; `None` means the whole tenant.
    pub file: Option<FileId>,
    /// The legal reason.
    pub reason: String,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// Requests an erasure. It has no effect until another operator approves it.
///
/// # Errors
/// Returns `Invalid` without a reason, `NotFound`, or `TenantDeleted`.
pub async fn request_erasure(
    app: &App,
    operator: &Operator,
    request: ErasureRequest,
) -> Result<Erasure, Error> {
    let mut violations = Violations::new();
    violations.ok_or_add("reason", text::check_line(&request.reason, REASON_CHARACTERS_MAX));
    violations.into_result()?;
    get::get_tenant(app, operator, request.tenant).await?;
    let mut tx = app.db.platform_tx(request.tenant, &Viewer::system()).await?;
    let requested = request_in_tx(app, &mut tx, operator, &request).await;
    tx.finish(requested).await
}

async fn request_in_tx(
    app: &App,
    tx: &mut TenantTx,
    operator: &Operator,
    request: &ErasureRequest,
) -> Result<Erasure, Error> {
    let payload = [
        operator.id().into_bytes(),
        request.file.map(|file| file.as_uuid().into_bytes().to_vec()).unwrap_or_default(),
        request.reason.clone().into_bytes(),
    ];
    let claim =
        idempotency::claim_request(app, tx, request.request_id, Method::RequestErasure, &payload).await?;
    let attempt = match claim {
        RequestClaim::Replay(erasure) => return Ok(erasure),
        RequestClaim::New(attempt) => attempt,
    };
    check_not_deleted(tx).await?;
    if let Some(file) = request.file {
        files::get(tx, file).await?.ok_or(Error::NotFound(Resource::File))?;
    }
    let new = NewErasure {
        id: ErasureId::from_uuid(app.ids.uuid()),
        file: request.file,
        reason: &request.reason,
        requested_by: &operator.name(),
        days: expire_days(app),
    };
    let erasure = erasures::insert(tx, new).await?;
    audit_entries::insert(tx, &[erasure_entry(operator, AuditAction::ErasureRequest, &erasure)]).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &erasure).await?;
    }
    Ok(erasure)
}

/// Approves an erasure that another operator requested. Returns an approved erasure unchanged.
///
/// # Errors
/// Returns `NotFound`, also for an erasure that has expired, `TenantDeleted`, or `NotAllowed` for an operator with the
/// subject of the one who requested it.
pub async fn approve_erasure(
    app: &App,
    operator: &Operator,
    tenant: TenantId,
    id: ErasureId,
    request_id: Option<RequestId>,
) -> Result<Erasure, Error> {
    get::get_tenant(app, operator, tenant).await?;
    let mut tx = app.db.platform_tx(tenant, &Viewer::system()).await?;
    let approved = approve_in_tx(app, &mut tx, operator, id, request_id).await;
    let approved = tx.finish(approved).await;
    if let Err(Error::NotAllowed(denial)) = &approved {
        let mut tx = app.db.platform_tx(tenant, &Viewer::system()).await?;
        let denied = record_denied_approval(&mut tx, operator, id, denial).await;
        tx.finish(denied).await?;
    }
    approved
}

async fn record_denied_approval(
    tx: &mut TenantTx,
    operator: &Operator,
    id: ErasureId,
    denial: &Denial,
) -> Result<(), Error> {
    // The erasure is missing if the tenant has been erased in the meantime.
    let mut entry = match erasures::get_for_update(tx, id).await? {
        Some(erasure) => erasure_entry(operator, AuditAction::ErasureApprove, &erasure),
        None => {
            let details = serde_json::json!({ "erasure": { "id": id } });
            operator_entry(operator, AuditAction::ErasureApprove, details)
        }
    };
    entry.is_allowed = false;
    entry.details["reason"] = serde_json::json!(denial.to_string());
    Ok(audit_entries::insert(tx, &[entry]).await?)
}

async fn approve_in_tx(
    app: &App,
    tx: &mut TenantTx,
    operator: &Operator,
    id: ErasureId,
    request_id: Option<RequestId>,
) -> Result<Erasure, Error> {
    let payload = [operator.id().into_bytes(), id.as_uuid().into_bytes().to_vec()];
    let claim = idempotency::claim_request(app, tx, request_id, Method::ApproveErasure, &payload).await?;
    let attempt = match claim {
        RequestClaim::Replay(erasure) => return Ok(erasure),
        RequestClaim::New(attempt) => attempt,
    };
    check_not_deleted(tx).await?;
    let requested = erasures::get_for_update(tx, id).await?.ok_or(Error::NotFound(Resource::Erasure))?;
    let approved_by = operator.name();
    // One person may have accounts at several issuers.
    if requested.requested_by.subject == approved_by.subject {
        return Err(Error::NotAllowed(Denial::ApprovesOwnRequest));
    }
    let erasure = if requested.approval.is_some() {
        requested
    } else {
        let erasure = erasures::approve(tx, id, &approved_by, expire_days(app)).await?;
        audit_entries::insert(tx, &[erasure_entry(operator, AuditAction::ErasureApprove, &erasure)]).await?;
        erasure
    };
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &erasure).await?;
    }
    Ok(erasure)
}

/// Returns the newest erasures of a tenant, including used and expired ones.
///
/// # Errors
/// Returns `NotFound`.
pub async fn list_erasures(app: &App, operator: &Operator, tenant: TenantId) -> Result<Vec<Erasure>, Error> {
    get::get_tenant(app, operator, tenant).await?;
    let mut tx = app.db.platform_tx(tenant, &Viewer::system()).await?;
    let listed = erasures::list(&mut tx, ERASURES_MAX).await;
    Ok(tx.finish(listed).await?)
}

/// Checks that the deletion of the transaction's tenant has not started, because an erasure would have no effect.
async fn check_not_deleted(tx: &mut TenantTx) -> Result<(), Error> {
    match tenant_records::get_for_update(tx).await?.state {
        TenantState::Active | TenantState::Suspended => Ok(()),
        TenantState::Deleting | TenantState::Deleted => Err(Error::TenantDeleted),
    }
}

fn expire_days(app: &App) -> u32 {
    u32::try_from(app.limits.retention.erasure_days).unwrap_or(u32::MAX)
}

fn erasure_entry(operator: &Operator, action: AuditAction, erasure: &Erasure) -> AuditEntry {
    let details = serde_json::json!({ "erasure": erasure.audit_details() });
    AuditEntry { file: erasure.file, ..operator_entry(operator, action, details) }
}
