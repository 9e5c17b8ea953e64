//! Releases the legal hold of a file.

use super::{Changed, Claimed, claim_with, conclude, filled, note_with, set_hold::HoldRequest};
use crate::{
    app::{App, Error, access::can_administer},
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        events::{Event, EventKind},
        files,
        idempotency_keys::Method,
    },
    domain::{caller::Caller, file::File},
};

/// Releases the legal hold of a file. One that is not held stays as it is. What was due for purging meanwhile is purged in
/// one of the next rounds.
///
/// # Errors
/// `Invalid`, `NotFound`, `NotAllowed`.
pub async fn release_hold(app: &App, caller: &Caller, request: HoldRequest) -> Result<Changed<File>, Error> {
    request.check()?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let released = run(app, &mut tx, caller, &request).await;
    super::recorded(app, caller, AuditAction::FileHoldRelease, request.change.file, tx.finish(released).await)
        .await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &HoldRequest,
) -> Result<Changed<File>, Error> {
    let attempt = (Method::ReleaseLegalHold, request.reason.clone().into_bytes());
    let (file, attempt) = match claim_with(app, tx, caller, &request.change, attempt).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    can_administer(caller)?;
    let file = match file.hold.clone() {
        None => file,
        Some(hold) => {
            let released = files::set_hold(tx, file.id, &caller.actor.id, None).await?;
            let details = serde_json::json!({ "reason": request.reason, "hold": hold });
            let (action, kind) = (AuditAction::FileHoldRelease, EventKind::FileHoldReleased);
            note_with(tx, caller, Event::of(kind, &released, &caller.actor.id), (action, details)).await?;
            released
        }
    };
    let file = filled(tx, file).await?;
    conclude(tx, attempt, file).await
}
