//! Sets a legal hold on a file.

use super::{Changed, Claimed, FileChange, claim_with, conclude, filled, note_with};
use crate::{
    app::{App, Error, access::can_administer},
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        events::{Event, EventKind},
        files,
        idempotency_keys::Method,
    },
    domain::{caller::Caller, file::File, text, violations::Violations},
};

/// The longest reason for a hold or its release, in characters.
const REASON_CHARACTERS_MAX: usize = 500;

/// Which file, and why.
#[derive(Debug, Clone)]
pub struct HoldRequest {
    /// Which file.
    pub change: FileChange,
    /// Why.
    pub reason: String,
}

impl HoldRequest {
    /// A hold, and its end, has its reason.
    pub(super) fn check(&self) -> Result<(), Violations> {
        let mut wrong = Violations::new();
        wrong.take("reason", text::line(&self.reason, REASON_CHARACTERS_MAX));
        wrong.into_result()
    }
}

/// Sets a legal hold on a file, also on one in the trash: nobody purges it until the hold is released. A file that is held
/// already stays as it is, with the first reason.
///
/// # Errors
/// `Invalid`, `NotFound`, `NotAllowed`.
pub async fn set_hold(app: &App, caller: &Caller, request: HoldRequest) -> Result<Changed<File>, Error> {
    request.check()?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let held = run(app, &mut tx, caller, &request).await;
    super::recorded(app, caller, AuditAction::FileHoldSet, request.change.file, tx.finish(held).await).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &HoldRequest,
) -> Result<Changed<File>, Error> {
    let attempt = (Method::SetLegalHold, request.reason.clone().into_bytes());
    let (file, attempt) = match claim_with(app, tx, caller, &request.change, attempt).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    can_administer(caller)?;
    let file = if file.hold.is_some() {
        file
    } else {
        let held = files::set_hold(tx, file.id, &caller.actor.id, Some(&request.reason)).await?;
        let details = serde_json::json!({ "reason": request.reason });
        let event = Event::of(EventKind::FileHoldSet, &held, &caller.actor.id);
        note_with(tx, caller, event, (AuditAction::FileHoldSet, details)).await?;
        held
    };
    let file = filled(tx, file).await?;
    conclude(tx, attempt, file).await
}
