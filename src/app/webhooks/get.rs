//! Reads endpoints.

use super::admin_tx;
use crate::{
    app::{App, Error},
    db::webhooks,
    domain::{caller::Caller, ids::WebhookId, webhook::Webhook},
};

/// One endpoint.
///
/// # Errors
/// `NotAllowed`, `NotFound`.
pub async fn get(app: &App, caller: &Caller, id: WebhookId) -> Result<Webhook, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let found = webhooks::get(&mut tx, id).await;
    tx.finish(found).await?.map(|stored| stored.webhook).ok_or(Error::NotFound("webhook"))
}

/// All endpoints, the oldest first.
///
/// # Errors
/// `NotAllowed`.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<Webhook>, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let found = webhooks::list(&mut tx).await;
    Ok(tx.finish(found).await?.into_iter().map(|stored| stored.webhook).collect())
}
