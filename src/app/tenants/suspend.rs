//! Suspends a tenant.

use super::{StateChange, change_state};
use crate::{
    app::{App, Error},
    db::{audit_entries::AuditAction, idempotency_keys::Method},
    domain::{
        caller::{Operator, TenantState},
        ids::{RequestId, TenantId},
        tenant_record::{REASON_CHARACTERS_MAX, TenantRecord},
        text,
        violations::Violations,
    },
};

/// Suspends a tenant: all of its calls, including reads, are rejected until it is resumed. Nothing is
/// deleted. This process rejects calls at once, the others when their cached tenant expires. The database
/// rejects new uploads at once, and running uploads at their commit. Running streams of all processes end within
/// twice `tenants.stream_recheck_milliseconds`.
///
/// # Errors
/// Returns `Invalid`, `NotFound` or `TenantDeleted`.
pub async fn suspend_tenant(
    app: &App,
    operator: &Operator,
    id: TenantId,
    reason: String,
    request_id: Option<RequestId>,
) -> Result<TenantRecord, Error> {
    let mut violations = Violations::new();
    violations.ok_or_add("reason", text::check_optional_line(&reason, REASON_CHARACTERS_MAX));
    violations.into_result()?;
    let (method, action) = (Method::SuspendTenant, AuditAction::TenantSuspend);
    change_state(
        app,
        operator,
        id,
        StateChange { state: TenantState::Suspended, reason, method, action, request_id },
    )
    .await
}
