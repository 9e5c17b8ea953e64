//! Shows what could not be delivered, and sends it once more.

use super::{Begin, admin_tx, begin, conclude, locked, note};
use crate::{
    app::{App, Error},
    db::{
        TenantTx,
        audit_entries::AuditAction,
        idempotency_keys::Method,
        webhook_deliveries::{self, Delivery},
        webhooks,
    },
    domain::{
        caller::Caller,
        event_position::EventPosition,
        ids::{RequestId, TenantId, WebhookId},
        violations::Violations,
        webhook::DeliveryState,
    },
};

const PAGE_SIZE_DEFAULT: usize = 20;
const PAGE_SIZE_MAX: usize = 100;

/// A page of failed deliveries, the newest event first.
#[derive(Debug)]
pub struct Page {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// Where to go on; empty after the last page.
    pub next_page_token: String,
}

/// What could not be delivered to an endpoint.
///
/// # Errors
/// `NotAllowed`, `NotFound`, `Invalid`, `PageTokenInvalid`.
pub async fn list(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    (page_size, page_token): (i32, &str),
) -> Result<Page, Error> {
    let negative = |_| Violations::one("page_size", "must not be negative; 0 means the default");
    let size = match usize::try_from(page_size).map_err(negative)? {
        0 => PAGE_SIZE_DEFAULT,
        asked => asked.min(PAGE_SIZE_MAX),
    };
    let tenant = caller.tenant_id();
    let before = (!page_token.is_empty()).then(|| open(app, tenant, id, page_token)).transpose()?;
    let mut tx = admin_tx(app, caller).await?;
    let read = read(&mut tx, id, before, size).await;
    let mut deliveries = tx.finish(read).await?;
    let has_more = deliveries.len() > size;
    deliveries.truncate(size);
    let next_page_token = match deliveries.last().filter(|_| has_more) {
        Some(last) => {
            let place = last.event.position.to_string();
            app.page_tokens.seal(&purpose(tenant, id), place.as_bytes()).map_err(Error::internal)?
        }
        None => String::new(),
    };
    Ok(Page { deliveries, next_page_token })
}

async fn read(
    tx: &mut TenantTx,
    id: WebhookId,
    before: Option<EventPosition>,
    size: usize,
) -> Result<Vec<Delivery>, Error> {
    webhooks::get(tx, id).await?.ok_or(Error::NotFound("webhook"))?;
    let one_more = i64::try_from(size + 1).unwrap_or(i64::MAX);
    Ok(webhook_deliveries::list(tx, id, before, one_more).await?)
}

fn purpose(tenant: TenantId, id: WebhookId) -> Vec<u8> {
    [b"webhook deliveries ".as_slice(), tenant.as_uuid().as_bytes(), id.as_uuid().as_bytes()].concat()
}

fn open(app: &App, tenant: TenantId, id: WebhookId, token: &str) -> Result<EventPosition, Error> {
    let opened = app.page_tokens.open(&purpose(tenant, id), token).map_err(|_| Error::PageTokenInvalid)?;
    let text = String::from_utf8(opened).map_err(|_| Error::PageTokenInvalid)?;
    text.parse().map_err(|_| Error::PageTokenInvalid)
}

/// Sends a dead letter once more, in front of what the endpoint is sent next. It is out of order by then: the receiver
/// tells by its position.
///
/// # Errors
/// `NotAllowed`, `NotFound`.
pub async fn redeliver(
    app: &App,
    caller: &Caller,
    (id, at): (WebhookId, EventPosition),
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    let mut tx = admin_tx(app, caller).await?;
    let asked = ask(app, &mut tx, caller, (id, at), request_id).await;
    tx.finish(asked).await
}

async fn ask(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    (id, at): (WebhookId, EventPosition),
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    let attempt = match begin(app, tx, caller, (request_id, Method::RedeliverWebhook), &(id, at)).await? {
        Begin::Answered(()) => return Ok(()),
        Begin::Ours(attempt) => attempt,
    };
    locked(tx, id).await?;
    let waiting = webhook_deliveries::set_state(tx, (id, at), DeliveryState::Waiting, None).await?;
    waiting.ok_or(Error::NotFound("delivery"))?;
    let details = serde_json::json!({ "webhook_id": id, "position": at });
    note(tx, caller, AuditAction::WebhookRedeliver, details).await?;
    conclude(tx, attempt, ()).await
}
