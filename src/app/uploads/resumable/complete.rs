//! Completes an upload that was created with `CreateUpload`. An upload whose bytes were sent through the
//! service is committed as at the end of a stream; for direct uploads see `direct/complete.rs`.

use std::sync::Arc;

use tracing::Instrument as _;

use super::resume::resume_upload;
use crate::{
    app::{
        App, Error, Resource,
        quotas::trash::explain_shortage,
        uploads::{
            CommittedUpload, UploadError,
            direct::complete::complete_direct_upload,
            error::count_outcome,
            receive::message::{Completion, UploadMessage},
        },
    },
    db::{Viewer, resumable_uploads},
    domain::{caller::Caller, ids::UploadId, violations::Violations},
};

/// Completes an upload. If it was committed before, returns the same response.
///
/// # Errors
/// Returns `NotFound` if the upload does not exist, and `NotDirect` if the request lists parts for an
/// upload that is not direct. Returns `SizeMismatch`, `PartSizeMismatch` or `Invalid` if parts are missing or
/// differ; the upload stays open and the parts can be sent again. Any error of `upload_file` is possible.
pub async fn complete_upload(
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    completion: Completion,
) -> Result<CommittedUpload, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let stored = resumable_uploads::get(&mut tx, id).await.map_err(Error::from);
    let stored = tx.finish(stored).await?;
    let stored = stored.filter(|stored| stored.upload.created_by == caller.actor.id);
    if !stored.ok_or(Error::NotFound(Resource::Upload))?.is_direct {
        if !completion.parts.is_empty() {
            return Err(UploadError::NotDirect.into());
        }
        let Completion { size_bytes, sha256, .. } = completion;
        let size_bytes = size_bytes
            .ok_or_else(|| Violations::one("size_bytes", "is required, because the upload is not direct"))?;
        let finish = UploadMessage::Finish { size_bytes, sha256 };
        return resume_upload(app, caller, id, futures::stream::iter([finish])).await;
    }
    // Runs in a separate task, so that a client that disconnects does not undo the completion.
    let (owned, owner) = (Arc::clone(app), caller.clone());
    let completing = async move { complete_direct_upload(&owned, &owner, id, completion).await };
    let completed = app.tasks.spawn(completing.in_current_span()).await.map_err(Error::internal)?;
    let completed = explain_shortage(app, caller, completed).await;
    count_outcome(app, &completed);
    completed
}
