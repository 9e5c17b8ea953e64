//! Suspends a tenant.

use super::{Move, moved};
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

/// Refuses every call of a tenant, reads too, until it is resumed. Nothing is removed. This replica refuses at once, the
/// others after as long as they remember a tenant; uploads are refused by the database at once, those under way at their
/// commit.
///
/// # Errors
/// `Invalid`, `NotFound`, `TenantDeleted`.
pub async fn suspend(
    app: &App,
    operator: &Operator,
    id: TenantId,
    (reason, request_id): (String, Option<RequestId>),
) -> Result<TenantRecord, Error> {
    let mut wrong = Violations::new();
    wrong.take("reason", text::optional_line(&reason, REASON_CHARACTERS_MAX));
    wrong.into_result()?;
    let (method, action) = (Method::SuspendTenant, AuditAction::TenantSuspend);
    moved(app, operator, id, Move { to: TenantState::Suspended, reason, method, action, request_id }).await
}
