//! Makes an endpoint.

use super::{Begin, Revealed, SealedAnswer, admin_tx, begin, conclude, new_secret, note, origin};
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

/// Makes an endpoint that is sent what happens from now on, and answers its secret.
///
/// # Errors
/// `Invalid` with every violation; `NotAllowed`; `TooManyWebhooks`.
pub async fn create(
    app: &App,
    caller: &Caller,
    change: WebhookChange,
    request_id: Option<RequestId>,
) -> Result<Revealed, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let created = run(app, &mut tx, caller, change, request_id).await;
    tx.finish(created).await?.reveal(app, caller.tenant_id())
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    change: WebhookChange,
    request_id: Option<RequestId>,
) -> Result<SealedAnswer, Error> {
    let attempt = match begin(app, tx, caller, (request_id, Method::CreateWebhook), &change).await? {
        Begin::Answered(answer) => return Ok(answer),
        Begin::Ours(attempt) => attempt,
    };
    if change.url.is_none() {
        return Err(Violations::one("webhook.url", "must not be empty").into());
    }
    change.check(app.limits.webhooks.allow_private_addresses)?;
    webhooks::lock_number(tx).await?;
    let max = app.limits.webhooks.per_tenant_max;
    if webhooks::list(tx, None, max.into()).await?.len() >= max as usize {
        return Err(Error::TooManyWebhooks(max));
    }
    let (id, tenant) = (WebhookId::from_uuid(app.ids.uuid()), caller.tenant_id());
    let sealed = new_secret(app, tenant, id)?;
    let (safe, _) = event_stream::newest(tx).await?;
    let stored = webhooks::insert(tx, (id, &change), (&sealed, &caller.actor.id), &safe).await?;
    let details = serde_json::json!({ "webhook_id": id, "url": origin(&stored.webhook.url) });
    note(tx, caller, AuditAction::WebhookCreate, details).await?;
    conclude(tx, attempt, SealedAnswer::of(stored)).await
}
