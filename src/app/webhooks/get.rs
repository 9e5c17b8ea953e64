//! Returns one webhook, or lists them.

use serde::{Deserialize, Serialize};

use super::admin_tx;
use crate::{
    app::{App, Error, Resource, access, pages},
    db::webhooks,
    domain::{caller::Caller, encoded_size::webhook_bytes_max, ids::WebhookId, webhook::Webhook},
};

/// Returns a webhook.
///
/// # Errors
/// Returns `NotAllowed` or `NotFound`.
pub async fn get_webhook(app: &App, caller: &Caller, id: WebhookId) -> Result<Webhook, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let found = webhooks::get(&mut tx, id).await;
    tx.finish(found).await?.map(|stored| stored.webhook).ok_or(Error::NotFound(Resource::Webhook))
}

/// A page of webhooks.
#[derive(Debug)]
pub struct WebhookPage {
    /// The webhooks, the oldest first.
    pub webhooks: Vec<Webhook>,
    /// The token of the next page. Empty on the last page.
    pub next_page_token: String,
}

/// The content of a page token of this list.
#[derive(Serialize, Deserialize)]
struct WebhookCursor {
    webhooks_after: WebhookId,
}

/// Lists the webhooks of the tenant, the oldest first, one page at a time.
///
/// # Errors
/// Returns `NotAllowed`, `Invalid` or `PageTokenInvalid`.
pub async fn list_webhooks(
    app: &App,
    caller: &Caller,
    page_size: i32,
    page_token: &str,
) -> Result<WebhookPage, Error> {
    access::check_is_admin(caller)?;
    let size = pages::resolve_page_size(app, page_size)?;
    let after: Option<WebhookCursor> = pages::open_token(app, caller, page_token)?;
    let mut tx = admin_tx(app, caller).await?;
    // One row more than the page shows whether there is another page.
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let found = webhooks::list(&mut tx, after.map(|after| after.webhooks_after), limit).await;
    let mut webhooks: Vec<Webhook> =
        tx.finish(found).await?.into_iter().map(|stored| stored.webhook).collect();
    let has_more = !pages::cut_page(&mut webhooks, size, webhook_bytes_max).is_empty();
    let next_page_token = match webhooks.last() {
        Some(last) if has_more => pages::seal_token(app, caller, &WebhookCursor { webhooks_after: last.id })?,
        _ => String::new(),
    };
    Ok(WebhookPage { webhooks, next_page_token })
}
