//! Takes a suspension back.

use super::{Move, moved};
use crate::{
    app::{App, Error},
    db::{audit_entries::AuditAction, idempotency_keys::Method},
    domain::{
        caller::{Operator, TenantState},
        ids::{RequestId, TenantId},
        tenant_record::TenantRecord,
    },
};

/// Serves a suspended tenant again.
///
/// # Errors
/// `NotFound`, `TenantDeleted`.
pub async fn resume(
    app: &App,
    operator: &Operator,
    id: TenantId,
    request_id: Option<RequestId>,
) -> Result<TenantRecord, Error> {
    let (method, action) = (Method::ResumeTenant, AuditAction::TenantResume);
    let asked = Move { to: TenantState::Active, reason: String::new(), method, action, request_id };
    moved(app, operator, id, asked).await
}
