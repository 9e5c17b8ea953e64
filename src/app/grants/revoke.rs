//! Revokes the permission of a user or a group on a file.

use serde::{Deserialize, Serialize};

use super::{Grant, begin_change, record_revocation};
use crate::{
    app::{
        App, Denial, Error, Resource,
        access::{can_see, is_owner_or_admin},
        audit,
        idempotency::{self, RequestClaim},
    },
    db::{
        TenantTx, Viewer, audit_entries::AuditAction, file_grants, file_locks, files::VisibleFile,
        idempotency_keys::Method,
    },
    domain::{
        caller::Caller,
        event_position::EventPosition,
        ids::{FileId, RequestId},
        principal::caller_principal,
    },
};

/// A request to revoke a permission.
#[derive(Debug, Clone)]
pub struct RevokeRequest {
    pub file: FileId,
    /// The user, service or group; see `domain::principal`.
    pub principal: String,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// The result of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeResponse {
    /// The number of deleted grants, including those that depended on the revoked one.
    pub grant_count: i64,
    /// The position of the event; `None` if nothing had to change.
    pub event: Option<EventPosition>,
}

/// Deletes the grant of a principal that no share created, and the grants that depend on it.
///
/// # Errors
/// Returns `NotFound` or `NotAllowed`.
pub async fn revoke_access(
    app: &App,
    caller: &Caller,
    request: RevokeRequest,
) -> Result<RevokeResponse, Error> {
    let id = request.file;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let revoked = revoke_in_tx(app, &mut tx, caller, &request).await;
    match tx.finish(revoked).await {
        Err(error @ Error::NotAllowed(_)) => {
            Err(audit::record_denial(app, caller, AuditAction::AccessRevoke, Some(id), error).await)
        }
        outcome => outcome,
    }
}

async fn revoke_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &RevokeRequest,
) -> Result<RevokeResponse, Error> {
    app.owners.check_primary()?;
    let payload = [
        caller.actor.id.clone().into_bytes(),
        request.file.as_uuid().into_bytes().to_vec(),
        request.principal.clone().into_bytes(),
    ];
    let claim = idempotency::claim_request(app, tx, request.request_id, Method::RevokeAccess, &payload);
    let attempt = match claim.await? {
        // The response contains nothing about the file, which the caller may no longer see.
        RequestClaim::Replay(response) => return Ok(response),
        RequestClaim::New(attempt) => attempt,
    };
    let found = file_locks::get_for_update(tx, request.file).await?;
    let found = found.filter(|found| can_see(caller, found)).ok_or(Error::NotFound(Resource::File))?;
    let present = file_grants::find_direct(tx, request.file, &request.principal).await?;
    check_may_revoke(caller, &found, &request.principal, present.as_ref())?;
    let response = match present {
        None => RevokeResponse { grant_count: 0, event: None },
        Some(grant) => {
            let file = begin_change(tx, request.file).await?;
            let revoked = file_grants::delete(tx, request.file, &[grant.id]).await?;
            let grant_count = i64::try_from(revoked.len()).unwrap_or(i64::MAX);
            record_revocation(tx, caller, &file, revoked, "revoked").await?;
            RevokeResponse { grant_count, event: tx.last_event() }
        }
    };
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &response).await?;
    }
    Ok(response)
}

/// Checks that the caller may revoke the grant of a principal, which may not exist.
fn check_may_revoke(
    caller: &Caller,
    found: &VisibleFile,
    principal: &str,
    present: Option<&Grant>,
) -> Result<(), Error> {
    let is_own = caller_principal(&caller.actor.id) == principal;
    let is_creator = match present {
        Some(present) => present.created_by == caller.actor.id,
        // A caller who may give grants may repeat the revocation of one.
        None => found.granted.is_some(),
    };
    match is_owner_or_admin(caller, &found.file) || is_own || is_creator {
        true => Ok(()),
        false => Err(Error::NotAllowed(Denial::ChangesOtherGrant)),
    }
}
