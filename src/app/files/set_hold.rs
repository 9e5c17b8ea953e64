//! Sets a legal hold on a file.

use super::{
    FileChange, MutationResponse, MutationStart, begin_mutation_with_payload, finish_mutation,
    load_file_details, record_change_with_details,
};
use crate::{
    app::{App, Error, access::check_is_admin},
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        events::{Event, EventKind},
        files,
        idempotency_keys::Method,
    },
    domain::{caller::Caller, file::File, text, violations::Violations},
};

/// The maximum length of the reason for a hold or its release, in characters.
const REASON_CHARACTERS_MAX: usize = 500;

/// A request to set or release a legal hold.
#[derive(Debug, Clone)]
pub struct HoldRequest {
    pub change: FileChange,
    pub reason: String,
}

impl HoldRequest {
    /// Checks the reason, which is required.
    pub(super) fn check(&self) -> Result<(), Violations> {
        let mut violations = Violations::new();
        violations.ok_or_add("reason", text::check_line(&self.reason, REASON_CHARACTERS_MAX));
        violations.into_result()
    }
}

/// Sets a legal hold on a file, which may be in the trash. The file cannot be purged until the hold is
/// released. If the file already has a hold, its reason does not change.
///
/// # Errors
/// Returns `Invalid`, `NotFound` or `NotAllowed`.
pub async fn set_legal_hold(
    app: &App,
    caller: &Caller,
    request: HoldRequest,
) -> Result<MutationResponse<File>, Error> {
    request.check()?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let held = set_hold_in_tx(app, &mut tx, caller, &request).await;
    super::record_if_denied(app, caller, AuditAction::FileHoldSet, request.change.file, tx.finish(held).await)
        .await
}

async fn set_hold_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &HoldRequest,
) -> Result<MutationResponse<File>, Error> {
    let HoldRequest { change, reason } = request;
    let (method, fields) = (Method::SetLegalHold, reason.clone().into_bytes());
    let start = begin_mutation_with_payload(app, tx, caller, change, method, fields).await?;
    let (file, attempt) = match start {
        MutationStart::Replay(response) => return Ok(response),
        MutationStart::Locked(file, attempt) => (*file, attempt),
    };
    check_is_admin(caller)?;
    let file = if file.hold.is_some() {
        file
    } else {
        let held = files::set_hold(tx, file.id, &caller.actor.id, Some(reason)).await?;
        let details = serde_json::json!({ "reason": reason });
        let event = Event::for_file(EventKind::FileHoldSet, &held, &caller.actor.id);
        record_change_with_details(tx, caller, event, AuditAction::FileHoldSet, details).await?;
        held
    };
    let file = load_file_details(tx, file).await?;
    finish_mutation(tx, attempt, file).await
}
