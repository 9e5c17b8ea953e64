//! Lists failed deliveries and redelivers them.

use super::{RequestClaim, admin_tx, audit_change, claim_request, lock_webhook, store_response};
use crate::{
    app::{App, Error, Resource, pages},
    db::{
        TenantTx,
        audit_entries::AuditAction,
        idempotency_keys::Method,
        webhook_deliveries::{self, Delivery},
        webhooks,
    },
    domain::{
        caller::Caller,
        encoded_size::delivery_bytes_max,
        event_position::EventPosition,
        ids::{RequestId, TenantId, WebhookId},
        webhook::DeliveryState,
    },
};

/// A page of failed deliveries, the newest event first.
#[derive(Debug)]
pub struct DeliveryPage {
    pub deliveries: Vec<Delivery>,
    /// The token of the next page; empty on the last page.
    pub next_page_token: String,
}

/// Lists the failed deliveries of a webhook.
///
/// # Errors
/// Returns `NotAllowed`, `NotFound`, `Invalid`, or `PageTokenInvalid`.
pub async fn list_failed_deliveries(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    page_size: i32,
    page_token: &str,
) -> Result<DeliveryPage, Error> {
    let size = pages::resolve_page_size(app, page_size)?;
    let tenant = caller.tenant_id();
    let before =
        (!page_token.is_empty()).then(|| open_page_token(app, tenant, id, page_token)).transpose()?;
    let mut tx = admin_tx(app, caller).await?;
    let read = read_deliveries(&mut tx, id, before, size).await;
    let mut deliveries = tx.finish(read).await?;
    let bytes_max = |delivery: &Delivery| delivery_bytes_max(&delivery.last_error);
    let has_more = !pages::cut_page(&mut deliveries, size, bytes_max).is_empty();
    let next_page_token = match deliveries.last().filter(|_| has_more) {
        Some(last) => {
            let position = last.event.position.to_string();
            app.page_tokens
                .seal(&sealing_purpose(tenant, id), position.as_bytes())
                .map_err(Error::internal)?
        }
        None => String::new(),
    };
    Ok(DeliveryPage { deliveries, next_page_token })
}

async fn read_deliveries(
    tx: &mut TenantTx,
    id: WebhookId,
    before: Option<EventPosition>,
    size: usize,
) -> Result<Vec<Delivery>, Error> {
    webhooks::get(tx, id).await?.ok_or(Error::NotFound(Resource::Webhook))?;
    let one_more = i64::try_from(size + 1).unwrap_or(i64::MAX);
    Ok(webhook_deliveries::list(tx, id, before, one_more).await?)
}

fn sealing_purpose(tenant: TenantId, id: WebhookId) -> Vec<u8> {
    [b"webhook deliveries ".as_slice(), tenant.as_uuid().as_bytes(), id.as_uuid().as_bytes()].concat()
}

fn open_page_token(app: &App, tenant: TenantId, id: WebhookId, token: &str) -> Result<EventPosition, Error> {
    let opened =
        app.page_tokens.open(&sealing_purpose(tenant, id), token).map_err(|_| Error::PageTokenInvalid)?;
    let text = String::from_utf8(opened).map_err(|_| Error::PageTokenInvalid)?;
    text.parse().map_err(|_| Error::PageTokenInvalid)
}

/// Schedules a dead letter to be sent again before the webhook's next event. It arrives out of order, which
/// the receiver can detect by its position.
///
/// # Errors
/// Returns `NotAllowed` or `NotFound`.
pub async fn redeliver_event(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    position: EventPosition,
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    let mut tx = admin_tx(app, caller).await?;
    let redelivered = redeliver_in_tx(app, &mut tx, caller, id, position, request_id).await;
    tx.finish(redelivered).await
}

async fn redeliver_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: WebhookId,
    position: EventPosition,
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    let attempt =
        match claim_request(app, tx, caller, request_id, Method::RedeliverWebhook, &(id, position)).await? {
            RequestClaim::Replay(()) => return Ok(()),
            RequestClaim::New(attempt) => attempt,
        };
    lock_webhook(tx, id).await?;
    let pending = webhook_deliveries::set_state(tx, id, position, DeliveryState::Waiting, None).await?;
    pending.ok_or(Error::NotFound(Resource::Delivery))?;
    let details = serde_json::json!({ "webhook_id": id, "position": position });
    audit_change(tx, caller, AuditAction::WebhookRedeliver, details).await?;
    store_response(tx, attempt, ()).await
}
