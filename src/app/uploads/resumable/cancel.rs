//! Cancels an upload: releases its reservation at once and deletes its bytes.

use std::sync::Arc;

use tracing::Instrument as _;

use super::get::get_visible_upload;
use crate::{
    admission::Holder,
    app::{
        App, Error, Resource, audit,
        idempotency::{self, RequestClaim},
        uploads::{
            UploadError,
            open::abandon::{AbandonedUpload, delete_leftovers, release_reservation},
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
};

/// Cancels an upload. Allowed for its creator and the tenant's admins. A writer that is still sending is
/// fenced.
///
/// # Errors
/// Returns `NotFound` if the upload does not exist or was cancelled before, and `Committed` if it
/// became a file.
pub async fn cancel_upload(
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    request_id: Option<RequestId>,
) -> Result<(), Error> {
    app.owners.check_primary()?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let released = cancel_in_tx(app, &mut tx, caller, id, request_id).await;
    let Some(stored) = tx.finish(released).await? else { return Ok(()) };
    // The upload is cancelled. Its bytes are deleted in a task that outlives the request; if that fails, they
    // are deleted when the lease expires.
    let (app, tenant, holder) = (Arc::clone(app), caller.tenant_id(), Holder::of_caller(caller));
    let tasks = app.tasks.clone();
    let deletion = async move {
        let abandoned = AbandonedUpload::from_stored(tenant, &stored);
        let deleted = match app.stores.get_for(&stored.provider, holder) {
            Ok(store) => delete_leftovers(&app, store.as_ref(), &abandoned).await.map(|_| ()),
            Err(unknown) => Err(unknown.into()),
        };
        if let Err(error) = deleted {
            tracing::warn!(%tenant, upload = %stored.lease.id, %error, "failed to delete the bytes of a cancelled upload");
        }
    };
    // A panic is reported by the task and does not change the response.
    let _ = tasks.spawn(deletion.in_current_span()).await;
    Ok(())
}

/// Takes over the upload and releases its reservation in one transaction, so that a cancelled upload cannot
/// be resumed after the response. Returns `None` if the request id already has a response, or if the object belongs to
/// another row.
async fn cancel_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: UploadId,
    request_id: Option<RequestId>,
) -> Result<Option<StoredUpload>, Error> {
    let payload = [caller.actor.id.clone().into_bytes(), id.as_uuid().into_bytes().to_vec()];
    let attempt =
        match idempotency::claim_request(app, tx, request_id, Method::CancelUpload, &payload).await? {
            RequestClaim::Replay(()) => return Ok(None),
            RequestClaim::New(attempt) => attempt,
        };
    resumable_uploads::take_over(tx, id).await?;
    let upload = get_visible_upload(tx, caller, id).await?;
    if upload.state == UploadState::Committed {
        return Err(match upload.file {
            Some(file) => UploadError::Committed(file).into(),
            None => Error::NotFound(Resource::Upload),
        });
    }
    let mut entry = audit::new_entry(caller, AuditAction::UploadCancel);
    entry.details = serde_json::json!({ "upload_id": id });
    audit_entries::insert(tx, &[entry]).await?;
    let stored = resumable_uploads::get(tx, id).await?.ok_or(Error::NotFound(Resource::Upload))?;
    let abandoned = AbandonedUpload::from_stored(caller.tenant_id(), &stored);
    let may_delete_bytes = release_reservation(tx, &abandoned).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &()).await?;
    }
    Ok(may_delete_bytes.then_some(stored))
}
