//! Webhooks: signed events are sent to the endpoints that a tenant's admins configure, in order per endpoint.
//!
//! Each endpoint has its own cursor in the event stream. Its next event is sent only after the previous one
//! was delivered or became a dead letter. A message contains the ids of the event and of its file; the
//! receiver reads the file with its own credentials.

mod create;
mod delete;
pub mod deliver;
mod deliveries;
mod get;
mod message;
mod rotate_secret;
mod send;
mod update;

pub use self::{
    create::create_webhook,
    delete::delete_webhook,
    deliveries::{list_failed_deliveries, redeliver_event},
    get::{get_webhook, list_webhooks},
    rotate_secret::rotate_webhook_secret,
    update::{WebhookUpdate, update_webhook},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::Url;

use super::{
    App, Error, Resource, access, audit,
    idempotency::{self, Attempt, RequestClaim},
};
use crate::{
    crypto::webhook_secret::WebhookSecret,
    db::{
        DbError, TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        idempotency_keys::Method,
        webhooks::{self, StoredWebhook},
    },
    domain::{
        caller::Caller,
        ids::{RequestId, TenantId, WebhookId},
        webhook::Webhook,
    },
};

pub use crate::db::webhook_deliveries::Delivery;

/// A webhook with its secret, which is shown only once.
#[derive(Debug, Clone)]
pub struct WebhookWithSecret {
    pub webhook: Webhook,
    /// The signing secret.
    pub secret: WebhookSecret,
}

/// A [`WebhookWithSecret`] as stored under a request id, with the secret sealed.
#[derive(Debug, Serialize, Deserialize)]
struct SealedWebhook {
    webhook: Webhook,
    sealed_secret: String,
}

impl SealedWebhook {
    fn from_stored(stored: StoredWebhook) -> Self {
        Self { webhook: stored.webhook, sealed_secret: stored.sealed_secret }
    }

    fn reveal(self, app: &App, tenant: TenantId) -> Result<WebhookWithSecret, Error> {
        let secret = open_secret(app, tenant, self.webhook.id, &self.sealed_secret)?;
        Ok(WebhookWithSecret { webhook: self.webhook, secret })
    }
}

/// Returns the sealing purpose of a secret: one webhook of one tenant.
fn sealing_purpose(tenant: TenantId, webhook: WebhookId) -> Vec<u8> {
    [b"webhook secret ".as_slice(), tenant.as_uuid().as_bytes(), webhook.as_uuid().as_bytes()].concat()
}

fn generate_sealed_secret(app: &App, tenant: TenantId, webhook: WebhookId) -> Result<String, Error> {
    let secret = WebhookSecret::generate().map_err(Error::internal)?;
    app.page_tokens.seal(&sealing_purpose(tenant, webhook), secret.text().as_bytes()).map_err(Error::internal)
}

fn open_secret(
    app: &App,
    tenant: TenantId,
    webhook: WebhookId,
    sealed: &str,
) -> Result<WebhookSecret, Error> {
    let opened = app.page_tokens.open(&sealing_purpose(tenant, webhook), sealed).map_err(Error::internal)?;
    String::from_utf8(opened).map(WebhookSecret::from_text).map_err(Error::internal)
}

/// Claims the request id of a mutation, or returns the stored response of an earlier attempt.
async fn claim_request<T: DeserializeOwned>(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request_id: Option<RequestId>,
    method: Method,
    request: &impl Serialize,
) -> Result<RequestClaim<T>, Error> {
    let request = serde_json::to_vec(request).map_err(Error::internal)?;
    let payload = [caller.actor.id.clone().into_bytes(), request];
    idempotency::claim_request(app, tx, request_id, method, &payload).await
}

async fn store_response<T: Serialize>(
    tx: &mut TenantTx,
    attempt: Option<Attempt>,
    response: T,
) -> Result<T, Error> {
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &response).await?;
    }
    Ok(response)
}

/// Begins a transaction for an admin. Other callers get `NotAllowed`.
async fn admin_tx(app: &App, caller: &Caller) -> Result<TenantTx, Error> {
    access::check_is_admin(caller)?;
    Ok(app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?)
}

/// Locks the webhook's row and returns it.
async fn lock_webhook(tx: &mut TenantTx, id: WebhookId) -> Result<StoredWebhook, Error> {
    webhooks::get_for_update(tx, id).await?.ok_or(Error::NotFound(Resource::Webhook))
}

/// Returns scheme, host and port of a URL. Its path and query may contain a secret, which must not be in the
/// audit trail.
fn url_origin(url: &str) -> String {
    Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

async fn audit_change(
    tx: &mut TenantTx,
    caller: &Caller,
    action: AuditAction,
    details: serde_json::Value,
) -> Result<(), DbError> {
    let mut entry = audit::new_entry(caller, action);
    entry.details = details;
    audit_entries::insert(tx, &[entry]).await
}
