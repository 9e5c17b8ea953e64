//! Webhooks: events are sent to endpoints that a tenant's admins name, signed, and each endpoint's in order.
//!
//! An endpoint follows the outbox with a cursor of its own. Its next event is not sent before the one in front of it was
//! delivered or given up. What is sent names the event and its file by id and no more: the receiver reads the file with
//! credentials of its own.

pub mod create;
pub mod delete;
pub mod deliver;
pub mod deliveries;
pub mod get;
mod message;
pub mod rotate;
mod send;
pub mod update;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::Url;

use super::{
    App, Error, access, audit,
    idempotency::{self, Attempt, Begun},
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

/// An endpoint whose secret is shown this once.
#[derive(Debug, Clone)]
pub struct Revealed {
    /// The endpoint.
    pub webhook: Webhook,
    /// Its secret.
    pub secret: WebhookSecret,
}

/// [`Revealed`] as it is stored under a request id: nobody finds the secret there.
#[derive(Debug, Serialize, Deserialize)]
struct SealedAnswer {
    webhook: Webhook,
    sealed_secret: String,
}

impl SealedAnswer {
    fn of(stored: StoredWebhook) -> Self {
        Self { webhook: stored.webhook, sealed_secret: stored.sealed_secret }
    }

    fn reveal(self, app: &App, tenant: TenantId) -> Result<Revealed, Error> {
        let secret = open_secret(app, tenant, self.webhook.id, &self.sealed_secret)?;
        Ok(Revealed { webhook: self.webhook, secret })
    }
}

/// What a secret is sealed for: one endpoint of one tenant.
fn purpose(tenant: TenantId, webhook: WebhookId) -> Vec<u8> {
    [b"webhook secret ".as_slice(), tenant.as_uuid().as_bytes(), webhook.as_uuid().as_bytes()].concat()
}

fn new_secret(app: &App, tenant: TenantId, webhook: WebhookId) -> Result<String, Error> {
    let secret = WebhookSecret::generate().map_err(Error::internal)?;
    app.page_tokens.seal(&purpose(tenant, webhook), secret.text().as_bytes()).map_err(Error::internal)
}

fn open_secret(
    app: &App,
    tenant: TenantId,
    webhook: WebhookId,
    sealed: &str,
) -> Result<WebhookSecret, Error> {
    let opened = app.page_tokens.open(&purpose(tenant, webhook), sealed).map_err(Error::internal)?;
    String::from_utf8(opened).map(WebhookSecret::from_text).map_err(Error::internal)
}

/// What every change of an endpoint begins with: the guard, the transaction, and the look for an earlier answer.
enum Begin<T> {
    Answered(T),
    Ours(Option<Attempt>),
}

async fn begin<T: DeserializeOwned>(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    (request_id, method): (Option<RequestId>, Method),
    said: &impl Serialize,
) -> Result<Begin<T>, Error> {
    let said = serde_json::to_vec(said).map_err(Error::internal)?;
    let payload = [caller.actor.id.clone().into_bytes(), said];
    match idempotency::begin(app, tx, request_id, method, &payload).await? {
        Begun::Replay(answer) => Ok(Begin::Answered(answer)),
        Begun::Fresh(attempt) => Ok(Begin::Ours(attempt)),
    }
}

async fn conclude<T: Serialize>(tx: &mut TenantTx, attempt: Option<Attempt>, answer: T) -> Result<T, Error> {
    if let Some(attempt) = attempt {
        attempt.record(tx, &answer).await?;
    }
    Ok(answer)
}

/// A transaction for an admin; everyone else is refused.
async fn admin_tx(app: &App, caller: &Caller) -> Result<TenantTx, Error> {
    access::can_administer(caller)?;
    Ok(app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?)
}

/// The endpoint, locked.
async fn locked(tx: &mut TenantTx, id: WebhookId) -> Result<StoredWebhook, Error> {
    webhooks::get_for_update(tx, id).await?.ok_or(Error::NotFound("webhook"))
}

/// Scheme, host and port of a URL: its path and its query may carry a secret, which is not for the audit trail.
fn origin(url: &str) -> String {
    Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

async fn note(
    tx: &mut TenantTx,
    caller: &Caller,
    action: AuditAction,
    details: serde_json::Value,
) -> Result<(), DbError> {
    let mut entry = audit::entry(caller, action, None);
    entry.details = details;
    audit_entries::insert(tx, &[entry]).await
}
