//! Changes an endpoint, stops it, or lets it go on.

use super::{Begin, admin_tx, begin, conclude, locked, note};
use crate::{
    app::{App, Error, files::watch::kept, preconditions::check_etag},
    db::{TenantTx, audit_entries::AuditAction, event_stream, idempotency_keys::Method, webhooks},
    domain::{
        caller::Caller,
        ids::{RequestId, WebhookId},
        webhook::{Webhook, WebhookChange, WebhookState},
    },
};

/// What to change.
#[derive(Debug, Clone)]
pub struct WebhookUpdate {
    /// Of which endpoint.
    pub id: WebhookId,
    /// The new values.
    pub change: WebhookChange,
    /// The etag that it must still have, or empty.
    pub if_etag: String,
    /// Makes a retry safe.
    pub request_id: Option<RequestId>,
}

/// Changes an endpoint. One that is made active goes on where it stood; where that place is lost, because events behind it
/// were dropped, it goes on from now.
///
/// # Errors
/// `Invalid` with every violation; `NotAllowed`; `NotFound`; `EtagMismatch`.
pub async fn update(app: &App, caller: &Caller, update: WebhookUpdate) -> Result<Webhook, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let updated = run(app, &mut tx, caller, update).await;
    tx.finish(updated).await
}

async fn run(app: &App, tx: &mut TenantTx, caller: &Caller, update: WebhookUpdate) -> Result<Webhook, Error> {
    let WebhookUpdate { id, change, if_etag, request_id } = update;
    let attempt =
        begin(app, tx, caller, (request_id, Method::UpdateWebhook), &(id, &change, &if_etag)).await?;
    let attempt = match attempt {
        Begin::Answered(answer) => return Ok(answer),
        Begin::Ours(attempt) => attempt,
    };
    change.check(app.limits.webhooks.allow_private_addresses)?;
    let stored = locked(tx, id).await?;
    check_etag(&if_etag, &stored.webhook.revision.to_string())?;
    if change.state == Some(WebhookState::Active) {
        let (safe, _) = event_stream::newest(tx).await?;
        if !safe.keeps_all_behind(stored.position_time, kept(app)) {
            webhooks::begin_from(tx, id, &safe).await?;
        }
    }
    let updated = webhooks::update(tx, id, &change).await?;
    let details = serde_json::json!({ "webhook_id": id, "fields": change.field_names() });
    note(tx, caller, AuditAction::WebhookUpdate, details).await?;
    conclude(tx, attempt, updated.webhook).await
}
