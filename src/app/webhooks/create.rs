//! Creates a webhook.

use super::{
    RequestClaim, SealedWebhook, WebhookWithSecret, admin_tx, audit_change, claim_request,
    generate_sealed_secret, store_response, url_origin,
};
use crate::{
    app::{App, Error},
    db::{TenantTx, audit_entries::AuditAction, event_stream, idempotency_keys::Method, webhooks},
    domain::{
        caller::Caller,
        ids::{RequestId, WebhookId},
        violations::Violations,
        webhook::WebhookChange,
    },
};

/// Creates a webhook that receives events from now on, and returns its secret.
///
/// # Errors
/// Returns `Invalid` with every violation, `NotAllowed`, or `TooManyWebhooks`.
pub async fn create_webhook(
    app: &App,
    caller: &Caller,
    change: WebhookChange,
    request_id: Option<RequestId>,
) -> Result<WebhookWithSecret, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let created = create_in_tx(app, &mut tx, caller, change, request_id).await;
    tx.finish(created).await?.reveal(app, caller.tenant_id())
}

async fn create_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: WebhookChange,
    request_id: Option<RequestId>,
) -> Result<SealedWebhook, Error> {
    let attempt = match claim_request(app, tx, caller, request_id, Method::CreateWebhook, &change).await? {
        RequestClaim::Replay(response) => return Ok(response),
        RequestClaim::New(attempt) => attempt,
    };
    if change.url.is_none() {
        return Err(Violations::one("webhook.url", "must not be empty").into());
    }
    change.check(app.limits.webhooks.allow_private_addresses)?;
    webhooks::lock_count(tx).await?;
    let max = app.limits.webhooks.per_tenant_max;
    if webhooks::list(tx, None, max.into()).await?.len() >= max as usize {
        return Err(Error::TooManyWebhooks(max));
    }
    let (id, tenant) = (WebhookId::from_uuid(app.ids.uuid()), caller.tenant_id());
    let sealed = generate_sealed_secret(app, tenant, id)?;
    let (snapshot, _) = event_stream::get_newest(tx).await?;
    let stored = webhooks::insert(tx, id, &change, &sealed, &caller.actor.id, &snapshot).await?;
    let details = serde_json::json!({ "webhook_id": id, "url": url_origin(&stored.webhook.url) });
    audit_change(tx, caller, AuditAction::WebhookCreate, details).await?;
    store_response(tx, attempt, SealedWebhook::from_stored(stored)).await
}
