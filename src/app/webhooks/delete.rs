//! Deletes a webhook.

use super::{RequestClaim, admin_tx, audit_change, claim_request, store_response};
use crate::{
    app::{App, Error, Resource},
    db::{TenantTx, audit_entries::AuditAction, idempotency_keys::Method, webhooks},
    domain::{
        caller::Caller,
        ids::{RequestId, WebhookId},
    },
};

/// Deletes a webhook with its dead letters. A message that is being sent may still arrive.
///
/// # Errors
/// Returns `NotAllowed` or `NotFound`.
pub async fn delete_webhook(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    let mut tx = admin_tx(app, caller).await?;
    let deleted = delete_in_tx(app, &mut tx, caller, id, request_id).await;
    tx.finish(deleted).await
}

async fn delete_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: WebhookId,
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    let attempt = match claim_request(app, tx, caller, request_id, Method::DeleteWebhook, &id).await? {
        RequestClaim::Replay(()) => return Ok(()),
        RequestClaim::New(attempt) => attempt,
    };
    if !webhooks::delete(tx, id).await? {
        return Err(Error::NotFound(Resource::Webhook));
    }
    audit_change(tx, caller, AuditAction::WebhookDelete, serde_json::json!({ "webhook_id": id })).await?;
    store_response(tx, attempt, ()).await
}
