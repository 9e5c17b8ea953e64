//! Resumes a suspended tenant.

use super::{StateChange, change_state};
use crate::{
    app::{App, Error},
    db::{audit_entries::AuditAction, idempotency_keys::Method},
    domain::{
        caller::{Operator, TenantState},
        ids::{RequestId, TenantId},
        tenant_record::TenantRecord,
    },
};

/// Resumes a suspended tenant.
///
/// # Errors
/// Returns `NotFound` or `TenantDeleted`.
pub async fn resume_tenant(
    app: &App,
    operator: &Operator,
    id: TenantId,
    request_id: Option<RequestId>,
) -> Result<TenantRecord, Error> {
    let (method, action) = (Method::ResumeTenant, AuditAction::TenantResume);
    let change =
        StateChange { state: TenantState::Active, reason: String::new(), method, action, request_id };
    change_state(app, operator, id, change).await
}
