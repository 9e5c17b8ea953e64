//! Ends an upload that was created before: what was sent through the service becomes a file as at the end of a stream; for
//! what went straight to the store see `direct/complete.rs`.

use std::sync::Arc;

use tracing::Instrument as _;

use super::resume::resume;
use crate::{
    app::{
        App, Error,
        uploads::{
            direct::complete::complete_direct,
            receive::message::{Completion, UploadMessage},
            upload::{Uploaded, count_outcome},
        },
    },
    db::{Viewer, resumable_uploads},
    domain::{caller::Caller, ids::UploadId, violations::Violations},
};

/// Ends an upload. One that was committed before is answered again.
///
/// # Errors
/// `NotFound`; `UploadNotDirect`; `SizeMismatch`, `PartSizeMismatch`, `Invalid` where parts are missing: nothing is lost then,
/// and they can be sent again; what a stream may be refused for.
pub async fn complete(
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    completion: Completion,
) -> Result<Uploaded, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let stored = resumable_uploads::get(&mut tx, id).await.map_err(Error::from);
    let stored = tx.finish(stored).await?;
    let stored = stored.filter(|stored| stored.upload.created_by == caller.actor.id);
    if !stored.ok_or(Error::NotFound("upload"))?.is_direct {
        if !completion.parts.is_empty() {
            return Err(Error::UploadNotDirect);
        }
        let Completion { size_bytes, sha256, .. } = completion;
        let size_bytes = size_bytes
            .ok_or_else(|| Violations::one("size_bytes", "is required, because the upload is not direct"))?;
        let finish = UploadMessage::Finish { size_bytes, sha256 };
        return resume(app, caller, id, futures::stream::iter([finish])).await;
    }
    // In a task of its own: a client that leaves does not undo what it has finished.
    let (owned, owner) = (Arc::clone(app), caller.clone());
    let completing = async move { complete_direct(&owned, &owner, id, completion).await };
    let completed = app.tasks.spawn(completing.in_current_span()).await.map_err(Error::internal)?;
    count_outcome(app, &completed);
    completed
}
