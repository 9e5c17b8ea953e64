//! Gives an endpoint another secret.

use super::{Begin, Revealed, SealedAnswer, admin_tx, begin, conclude, locked, new_secret, note};
use crate::{
    app::{App, Error},
    db::{TenantTx, audit_entries::AuditAction, idempotency_keys::Method, webhooks},
    domain::{
        caller::Caller,
        ids::{RequestId, WebhookId},
    },
};

/// How long the secret before signs too, so that receivers can change over: a day.
const OVERLAP_SECONDS: u32 = 86_400;

/// Makes another secret and answers it. For a day messages carry two signatures.
///
/// # Errors
/// `NotAllowed`, `NotFound`.
pub async fn rotate(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    request_id: Option<RequestId>,
) -> Result<Revealed, Error> {
    let mut tx = admin_tx(app, caller).await?;
    let rotated = run(app, &mut tx, caller, id, request_id).await;
    tx.finish(rotated).await?.reveal(app, caller.tenant_id())
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: WebhookId,
    request_id: Option<RequestId>,
) -> Result<SealedAnswer, Error> {
    let attempt = match begin(app, tx, caller, (request_id, Method::RotateWebhookSecret), &id).await? {
        Begin::Answered(answer) => return Ok(answer),
        Begin::Ours(attempt) => attempt,
    };
    locked(tx, id).await?;
    let sealed = new_secret(app, caller.tenant_id(), id)?;
    let stored = webhooks::set_secret(tx, id, &sealed, OVERLAP_SECONDS).await?;
    note(tx, caller, AuditAction::WebhookRotate, serde_json::json!({ "webhook_id": id })).await?;
    conclude(tx, attempt, SealedAnswer::of(stored)).await
}
