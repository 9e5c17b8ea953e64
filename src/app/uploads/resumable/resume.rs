//! Resumes an upload from the end of the stored bytes or from any earlier part. Taking over the lease fences
//! the previous writer. Stored bytes are not read again.

use std::sync::Arc;

use crate::{
    app::{
        App, Error, Resource,
        quotas::trash::explain_shortage,
        uploads::{
            UploadError,
            admit::{check_retention_again, check_target_again},
            commit::{CommittedUpload, commit_request_id, replay_committed_upload},
            error::count_outcome,
            open::{OpenUpload, abandon::abandon_if_refused},
            receive::{
                Sink,
                compare::{CommittedContent, CommittedParts},
                content::ContentInspector,
                pace::UploadStream,
                persisted::PersistedParts,
                receive_stream,
            },
            upload::store_and_commit,
        },
    },
    db::{
        TenantTx, Viewer, quotas,
        resumable_uploads::{self, StoredUpload},
        upload_parts,
    },
    domain::{caller::Caller, clock::Timestamp, ids::UploadId, policy::FileSizeLimits, upload::UploadState},
};

/// Receives the rest of an upload and commits it at the finish message. If the upload was committed before,
/// compares the stream with the committed file and returns the same response.
///
/// # Errors
/// Returns `NotFound`, also if the lease has expired; `Paused` if the stream ends without a finish
/// message; `Fenced` if another writer took over in the meantime; `SizeMismatch` or `ChecksumMismatch` if
/// another file was committed; and any error of `upload_file`.
pub async fn resume_upload<S>(
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: UploadStream,
{
    let uploaded = receive_and_commit(app, caller, id, messages).await;
    let uploaded = explain_shortage(app, caller, uploaded).await;
    count_outcome(app, &uploaded);
    uploaded
}

async fn receive_and_commit<S>(
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: UploadStream,
{
    let OwnedUpload { stored, persisted, limits } = match take_over(app, caller, id, Purpose::Finish).await? {
        TakenUpload::Open(owned) => *owned,
        TakenUpload::Committed(parts) => {
            let committed = replay_committed_upload(app, caller, id).await?;
            parts.compare_stream(app, caller, CommittedContent::from(&committed), messages).await?;
            return Ok(committed);
        }
    };
    let open = OpenUpload::from_stored(app, caller, &stored)?;
    let sniffed = stored.sniffed_mime_type.as_deref();
    let content =
        ContentInspector::resume(&stored.spec, limits, &app.hashing.share_of(caller), &persisted, sniffed)?;
    // Commit under the upload's own request id, so that completing the upload again returns the same
    // response.
    let mut spec = stored.spec;
    spec.checked.request_id = Some(commit_request_id(id));
    let sink = Sink::Store { target: Box::new(open.target().clone()), open: Some(open) };
    let received = receive_stream(app, caller, content, sink, persisted, messages).await?;
    store_and_commit(app, caller, spec, received).await
}

/// An upload whose lease this process holds.
pub(super) struct OwnedUpload {
    pub(super) stored: StoredUpload,
    pub(super) persisted: PersistedParts,
    pub(super) limits: FileSizeLimits,
}

/// The state of an upload that was to be taken over.
pub(super) enum TakenUpload {
    /// It is open, and this process holds it.
    Open(Box<OwnedUpload>),
    /// It was committed.
    Committed(Box<CommittedParts>),
}

/// The purpose of taking over an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To add one part.
    AddPart,
    /// To add parts and to complete it, which needs the block checksums of its earlier parts.
    Finish,
}

/// Takes over an upload, unless it was committed.
pub(super) async fn take_over(
    app: &App,
    caller: &Caller,
    id: UploadId,
    purpose: Purpose,
) -> Result<TakenUpload, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let owned = take_over_in_tx(&mut tx, caller, id, app.clock.now(), purpose).await;
    abandon_if_refused(app, caller, id, tx.finish(owned).await).await
}

async fn take_over_in_tx(
    tx: &mut TenantTx,
    caller: &Caller,
    id: UploadId,
    now: Timestamp,
    purpose: Purpose,
) -> Result<TakenUpload, Error> {
    resumable_uploads::take_over(tx, id).await?;
    let stored = resumable_uploads::get(tx, id).await?;
    // Only the creator may resume it, because the creator will own the file.
    let stored = stored.filter(|stored| stored.upload.created_by == caller.actor.id);
    let stored = stored.ok_or(Error::NotFound(Resource::Upload))?;
    if stored.is_direct {
        return Err(UploadError::IsDirect.into());
    }
    let mut persisted = PersistedParts::from_rows(upload_parts::list(tx, id).await?);
    if stored.upload.state == UploadState::Committed {
        return Ok(TakenUpload::Committed(Box::new(CommittedParts { stored, persisted })));
    }
    check_target_again(tx, caller, &stored.spec.checked).await?;
    check_retention_again(caller, &stored.spec.checked, now)?;
    // Parts after a gap were written after different bytes, and so were their digest states.
    upload_parts::delete_from(tx, stored.lease, persisted.next_number()).await?;
    if purpose == Purpose::Finish && persisted.next_number() > 1 {
        let checksums = upload_parts::list_block_checksums(tx, id, persisted.next_number()).await?;
        persisted = persisted.with_block_checksums(checksums);
    }
    let limits = quotas::get(tx).await?.file_size_max_bytes;
    Ok(TakenUpload::Open(Box::new(OwnedUpload { stored, persisted, limits })))
}
