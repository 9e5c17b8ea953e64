//! Releases the legal hold of a file.

use super::{
    MutationResponse, MutationStart, begin_mutation_with_payload, finish_mutation, load_file_details,
    record_change_with_details, set_hold::HoldRequest,
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
    domain::{caller::Caller, file::File},
};

/// Releases the legal hold of a file. Returns a file without a hold unchanged. If the file became due for
/// purge during the hold, one of the next rounds purges it.
///
/// # Errors
/// Returns `Invalid`, `NotFound` or `NotAllowed`.
pub async fn release_legal_hold(
    app: &App,
    caller: &Caller,
    request: HoldRequest,
) -> Result<MutationResponse<File>, Error> {
    request.check()?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let released = release_hold_in_tx(app, &mut tx, caller, &request).await;
    super::record_if_denied(
        app,
        caller,
        AuditAction::FileHoldRelease,
        request.change.file,
        tx.finish(released).await,
    )
    .await
}

async fn release_hold_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &HoldRequest,
) -> Result<MutationResponse<File>, Error> {
    let HoldRequest { change, reason } = request;
    let (method, fields) = (Method::ReleaseLegalHold, reason.clone().into_bytes());
    let start = begin_mutation_with_payload(app, tx, caller, change, method, fields).await?;
    let (file, attempt) = match start {
        MutationStart::Replay(response) => return Ok(response),
        MutationStart::Locked(file, attempt) => (*file, attempt),
    };
    check_is_admin(caller)?;
    let file = match file.hold.clone() {
        None => file,
        Some(hold) => {
            let released = files::set_hold(tx, file.id, &caller.actor.id, None).await?;
            let details = serde_json::json!({ "reason": reason, "hold": hold });
            let event = Event::for_file(EventKind::FileHoldReleased, &released, &caller.actor.id);
            record_change_with_details(tx, caller, event, AuditAction::FileHoldRelease, details).await?;
            released
        }
    };
    let file = load_file_details(tx, file).await?;
    finish_mutation(tx, attempt, file).await
}
