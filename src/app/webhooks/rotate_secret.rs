//! Rotates the secret of a webhook.

use super::{
    RequestClaim, SealedWebhook, WebhookWithSecret, admin_tx, audit_change, claim_request,
    generate_sealed_secret, lock_webhook, store_response,
};
use crate::{
    app::{App, Error},
    db::{TenantTx, audit_entries::AuditAction, idempotency_keys::Method, webhooks},
    domain::{
        caller::Caller,
        ids::{RequestId, WebhookId},
    },
};

/// How long messages are also signed with the previous secret, so that receivers can switch: one day.
const OVERLAP_SECONDS: u32 = 86_400;

/// Generates a new secret and returns it. For one day messages have two signatures.
///
/// # Errors
/// Returns `NotAllowed` or `NotFound`.
pub async fn rotate_webhook_secret(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    request_id: Option<RequestId>,
) -> Result<WebhookWithSecret, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let rotated = rotate_secret_in_tx(app, &mut tx, caller, id, request_id).await;
    tx.finish(rotated).await?.reveal(app, caller.tenant_id())
}

async fn rotate_secret_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: WebhookId,
    request_id: Option<RequestId>,
) -> Result<SealedWebhook, Error> {
    let attempt = match claim_request(app, tx, caller, request_id, Method::RotateWebhookSecret, &id).await? {
        RequestClaim::Replay(response) => return Ok(response),
        RequestClaim::New(attempt) => attempt,
    };
    lock_webhook(tx, id).await?;
    let sealed = generate_sealed_secret(app, caller.tenant_id(), id)?;
    let stored = webhooks::set_secret(tx, id, &sealed, OVERLAP_SECONDS).await?;
    audit_change(tx, caller, AuditAction::WebhookRotate, serde_json::json!({ "webhook_id": id })).await?;
    store_response(tx, attempt, SealedWebhook::from_stored(stored)).await
}
