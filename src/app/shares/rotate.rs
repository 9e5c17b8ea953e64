//! Rotates the token of a link.

use super::{
    Expiry, LockedShare, Recorded, RequestClaim, SealedShare, ShareWithToken, begin_change,
    check_not_revoked, check_share_type, claim_request, find_source, lock_share, record_change,
    record_if_denied, replay, store_response,
};
use crate::{
    app::{App, Error},
    crypto::share_token::ShareToken,
    db::{TenantTx, Viewer, audit_entries::AuditAction, events::EventKind, idempotency_keys::Method, shares},
    domain::{
        caller::Caller,
        ids::{RequestId, ShareId},
        violations::Violations,
    },
};

/// Generates a new token for a link, and returns it. The former token ends at once.
///
/// # Errors
/// Returns `Invalid` for a share that is no link or is revoked, `NotFound` or `NotAllowed`.
pub async fn rotate_share_token(
    app: &App,
    caller: &Caller,
    id: ShareId,
    request_id: Option<RequestId>,
) -> Result<ShareWithToken, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let rotated = rotate_in_tx(app, &mut tx, caller, id, request_id).await;
    record_if_denied(app, caller, AuditAction::ShareRotate, None, tx.finish(rotated).await)
        .await?
        .reveal(app, caller.tenant_id())
}

async fn rotate_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: ShareId,
    request_id: Option<RequestId>,
) -> Result<SealedShare, Error> {
    let attempt = match claim_request(app, tx, caller, request_id, Method::RotateShareToken, &id).await? {
        RequestClaim::Replay(response) => return replay(tx, caller, response).await,
        RequestClaim::New(attempt) => attempt,
    };
    let LockedShare { file, stored } = lock_share(tx, caller, id).await?;
    if !stored.share.share_type.is_link() {
        return Err(Violations::one("share_id", "only links (PUBLIC_LINK and TEMPORARY) have a token").into());
    }
    check_not_revoked(&stored.share)?;
    check_share_type(caller, &file.file, stored.share.share_type)?;
    // The new token gives access, so the caller needs the permission to give it.
    let expiry = Expiry { time: stored.share.expire_time, is_default: false };
    let source = find_source(tx, caller, &file, stored.share.permission, expiry, Some(id)).await?;
    let token = ShareToken::generate(caller.tenant_id()).map_err(Error::internal)?;
    let file = begin_change(tx, stored.share.file).await?;
    let share = shares::set_token(tx, id, token.digest(), source.grant).await?.share;
    let (action, kind) = (AuditAction::ShareRotate, EventKind::FileShareUpdated);
    let details = serde_json::json!({});
    let removed = Vec::new();
    record_change(tx, caller, Recorded { action, kind, details, file: &file, share: &share, removed })
        .await?;
    let sealed = SealedShare::seal(app, caller.tenant_id(), share, Some(&token))?;
    store_response(tx, attempt, sealed).await
}
