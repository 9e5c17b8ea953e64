//! Returns webhooks.

use super::admin_tx;
use crate::{
    app::{App, Error},
    db::webhooks,
    domain::{caller::Caller, ids::WebhookId, webhook::Webhook},
};

/// Returns a webhook.
///
/// # Errors
/// Returns `NotAllowed` or `NotFound`.
pub async fn get_webhook(app: &App, caller: &Caller, id: WebhookId) -> Result<Webhook, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let found = webhooks::get(&mut tx, id).await;
    tx.finish(found).await?.map(|stored| stored.webhook).ok_or(Error::NotFound("webhook"))
}

/// Lists all webhooks, the oldest first.
///
/// # Errors
/// Returns `NotAllowed`.
pub async fn list_webhooks(app: &App, caller: &Caller) -> Result<Vec<Webhook>, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let found = webhooks::list(&mut tx).await;
    Ok(tx.finish(found).await?.into_iter().map(|stored| stored.webhook).collect())
}
