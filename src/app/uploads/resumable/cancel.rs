//! Gives an upload up: its reservation is free at once, and its bytes go.

use std::sync::Arc;

use tracing::Instrument as _;

use super::get::seen;
use crate::{
    app::{
        App, Error, audit,
        idempotency::{self, Begun},
        uploads::{
            give_up::{Left, clear, release},
            open::lease_seconds,
        },
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
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let released = run(app, &mut tx, caller, id, request_id).await;
    let Some(stored) = tx.finish(released).await? else { return Ok(()) };
    // It is cancelled. Its bytes go in a task that outlives the request; what fails waits for its lease to run out.
    let (app, tenant) = (Arc::clone(app), caller.tenant_id());
    let tasks = app.tasks.clone();
    let clearing = async move {
        let multipart = MultipartId::new(stored.multipart_id.as_str());
        let left = Left::of(tenant, &stored, &multipart);
        let cleared = match app.stores.of(&stored.provider) {
            Ok(store) => clear(&app, store.as_ref(), &left).await,
            Err(unknown) => Err(unknown.into()),
        };
        if let Err(error) = cleared {
            tracing::warn!(%tenant, upload = %stored.lease.id, %error, "remove the bytes of a cancelled upload");
        }
    };
    // A panic was told by the task itself; the answer is the same.
    let _ = tasks.spawn(clearing.in_current_span()).await;
    Ok(())
}

/// Takes the upload over and releases it, all in the transaction of the answer: who is told that it is cancelled need not
/// fear that it goes on. Answers nothing where the request id was answered before.
async fn run(
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
    let stored = resumable_uploads::get(tx, id).await?.ok_or(Error::NotFound("upload"))?;
    let multipart = MultipartId::new(stored.multipart_id.as_str());
    release(tx, &Left::of(caller.tenant_id(), &stored, &multipart)).await?;
    if let Some(attempt) = attempt {
        attempt.record(tx, &()).await?;
    }
    Ok(Some(stored))
}
