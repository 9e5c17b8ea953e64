//! Updates, pauses or activates a webhook.

use super::{RequestClaim, admin_tx, audit_change, claim_request, lock_webhook, store_response};
use crate::{
    app::{App, Error, preconditions::check_etag},
    db::{TenantTx, audit_entries::AuditAction, event_stream, idempotency_keys::Method, webhooks},
    domain::{
        caller::Caller,
        ids::{RequestId, WebhookId},
        webhook::{Webhook, WebhookChange, WebhookState},
    },
};

/// A request to update a webhook.
#[derive(Debug, Clone)]
pub struct WebhookUpdate {
    pub id: WebhookId,
    pub change: WebhookChange,
    /// The expected etag of the webhook. Empty means no check.
    pub if_etag: String,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// Updates a webhook. An activated webhook continues at its position. If events after that position have been
/// dropped, it continues with new events only.
///
/// # Errors
/// Returns `Invalid` with every violation, `NotAllowed`, `NotFound`, or `EtagMismatch`.
pub async fn update_webhook(app: &App, caller: &Caller, update: WebhookUpdate) -> Result<Webhook, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let updated = update_in_tx(app, &mut tx, caller, update).await;
    tx.finish(updated).await
}

async fn update_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    update: WebhookUpdate,
) -> Result<Webhook, Error> {
    let WebhookUpdate { id, change, if_etag, request_id } = update;
    let attempt =
        claim_request(app, tx, caller, request_id, Method::UpdateWebhook, &(id, &change, &if_etag)).await?;
    let attempt = match attempt {
        RequestClaim::Replay(response) => return Ok(response),
        RequestClaim::New(attempt) => attempt,
    };
    change.check(app.limits.webhooks.allow_private_addresses)?;
    let stored = lock_webhook(tx, id).await?;
    check_etag(&if_etag, &stored.webhook.revision.to_string())?;
    if change.state == Some(WebhookState::Active) {
        let (snapshot, _) = event_stream::get_newest(tx).await?;
        if !snapshot.retains_time(stored.position_time) {
            webhooks::reset_position(tx, id, &snapshot).await?;
        }
    }
    let updated = webhooks::update(tx, id, &change).await?;
    let details = serde_json::json!({ "webhook_id": id, "fields": change.field_names() });
    audit_change(tx, caller, AuditAction::WebhookUpdate, details).await?;
    store_response(tx, attempt, updated.webhook).await
}
