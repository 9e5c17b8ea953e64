//! Gives an upload up: its reservation is free at once, and its bytes go.

use super::{
    get::seen,
    open::{Left, give_up, lease_seconds},
};
use crate::{
    app::{
        App, Error, audit,
        idempotency::{self, Begun},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        idempotency_keys::Method,
        resumable_uploads::{self, StoredUpload},
    },
    domain::{
        caller::Caller,
        ids::{RequestId, UploadId},
        upload::UploadState,
    },
    storage::MultipartId,
};

/// Gives an upload up: its creator may, and the tenant's admins. Whoever is still sending is fenced.
///
/// # Errors
/// `NotFound`, also for one that was given up before; `UploadCommitted`.
pub async fn cancel(
    app: &App,
    caller: &Caller,
    id: UploadId,
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let taken = take(app, &mut tx, caller, id, request_id).await;
    let Some(stored) = tx.finish(taken).await? else { return Ok(()) };
    let multipart = stored.staging_key.is_none().then(|| MultipartId::new(stored.multipart_id.as_str()));
    let left = Left {
        tenant: caller.tenant_id(),
        lease: stored.lease,
        key: &stored.key,
        multipart: multipart.as_ref(),
        staging_key: stored.staging_key.as_ref(),
        is_recorded: true,
    };
    let store = app.stores.of(&stored.provider)?;
    give_up(app, store.as_ref(), left).await.map(|_| ())
}

/// Takes the upload over; answers nothing where the request id was answered before.
async fn take(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: UploadId,
    request_id: Option<RequestId>,
) -> Result<Option<StoredUpload>, Error> {
    let payload = [caller.actor.id.clone().into_bytes(), id.as_uuid().into_bytes().to_vec()];
    let attempt = match idempotency::begin(app, tx, request_id, Method::CancelUpload, &payload).await? {
        Begun::Replay(()) => return Ok(None),
        Begun::Fresh(attempt) => attempt,
    };
    resumable_uploads::take_over(tx, id, lease_seconds(app)).await?;
    let upload = seen(tx, caller, id).await?;
    if upload.state == UploadState::Committed {
        return Err(match upload.file {
            Some(file) => Error::UploadCommitted(file),
            None => Error::NotFound("upload"),
        });
    }
    let mut entry = audit::entry(caller, AuditAction::UploadCancel, None);
    entry.details = serde_json::json!({ "upload_id": id });
    audit_entries::insert(tx, &[entry]).await?;
    if let Some(attempt) = attempt {
        attempt.record(tx, &()).await?;
    }
    resumable_uploads::get(tx, id).await.map_err(Error::from)
}
