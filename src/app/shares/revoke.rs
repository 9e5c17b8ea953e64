//! Revokes a share.

use super::{
    LockedShare, Recorded, RequestClaim, begin_change, claim_request, load_recipients, lock_share,
    record_change, record_if_denied, replay, store_response,
};
use crate::{
    app::{App, Error},
    db::{
        TenantTx, Viewer, audit_entries::AuditAction, events::EventKind, file_grants,
        idempotency_keys::Method, shares,
    },
    domain::{
        caller::Caller,
        ids::{RequestId, ShareId},
        share::Share,
    },
};

/// Revokes a share. Its recipients and visitors lose access at once, also in the middle of a download. A share that is
/// revoked already does not change.
///
/// # Errors
/// Returns `NotFound` or `NotAllowed`.
pub async fn revoke_share(
    app: &App,
    caller: &Caller,
    id: ShareId,
    request_id: Option<RequestId>,
) -> Result<Share, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let revoked = revoke_in_tx(app, &mut tx, caller, id, request_id).await;
    record_if_denied(app, caller, AuditAction::ShareRevoke, None, tx.finish(revoked).await).await
}

async fn revoke_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: ShareId,
    request_id: Option<RequestId>,
) -> Result<Share, Error> {
    let attempt = match claim_request(app, tx, caller, request_id, Method::RevokeShare, &id).await? {
        RequestClaim::Replay(response) => return replay(tx, caller, response).await,
        RequestClaim::New(attempt) => attempt,
    };
    let LockedShare { stored, .. } = lock_share(tx, caller, id).await?;
    if stored.share.revoke_time.is_some() {
        return store_response(tx, attempt, stored.share).await;
    }
    let file = begin_change(tx, stored.share.file).await?;
    let mut share = shares::revoke(tx, id).await?.share;
    let deleted = file_grants::delete_of_share(tx, share.file, id.as_uuid()).await?;
    let removed = deleted.into_iter().map(|grant| grant.principal).collect();
    let (action, kind) = (AuditAction::ShareRevoke, EventKind::FileShareRevoked);
    let details = serde_json::json!({ "type": share.share_type.as_str() });
    record_change(tx, caller, Recorded { action, kind, details, file: &file, share: &share, removed })
        .await?;
    load_recipients(tx, std::slice::from_mut(&mut share)).await?;
    store_response(tx, attempt, share).await
}
