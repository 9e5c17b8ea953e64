//! Removes an endpoint.

use super::{Begin, admin_tx, begin, conclude, note};
use crate::{
    app::{App, Error},
    db::{TenantTx, audit_entries::AuditAction, idempotency_keys::Method, webhooks},
    domain::{
        caller::Caller,
        ids::{RequestId, WebhookId},
    },
};

/// Removes an endpoint with its dead letters. A delivery that is under way may still arrive.
///
/// # Errors
/// `NotAllowed`, `NotFound`.
pub async fn delete(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    let mut tx = admin_tx(app, caller).await?;
    let deleted = run(app, &mut tx, caller, id, request_id).await;
    tx.finish(deleted).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: WebhookId,
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    let attempt = match begin(app, tx, caller, (request_id, Method::DeleteWebhook), &id).await? {
        Begin::Answered(()) => return Ok(()),
        Begin::Ours(attempt) => attempt,
    };
    if !webhooks::delete(tx, id).await? {
        return Err(Error::NotFound("webhook"));
    }
    note(tx, caller, AuditAction::WebhookDelete, serde_json::json!({ "webhook_id": id })).await?;
    conclude(tx, attempt, ()).await
}
