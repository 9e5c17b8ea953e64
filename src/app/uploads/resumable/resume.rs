//! Goes on with an upload that was created before: from the end of what is stored, or from any part before it. Taking it over
//! fences whoever sent before; nothing that is stored is read again.

use std::sync::Arc;

use futures::Stream;

use crate::{
    app::{
        App, Error,
        uploads::{
            answered::{answered, request_id},
            open::{OpenUpload, lease_seconds},
            receive::{Sink, content::Content, message::UploadMessage, persisted::Persisted, receive},
            upload::{Uploaded, count_outcome, store, uploaded},
        },
    },
    db::{
        TenantTx, Viewer, quotas,
        resumable_uploads::{self, StoredUpload},
        upload_parts,
    },
    domain::{
        caller::Caller,
        ids::UploadId,
        policy::{FileSizeLimits, TakenTypes},
        upload::UploadState,
        upload_spec::CheckedSpec,
    },
};

/// Receives the rest of an upload, and commits it with the finish message. One that was committed before is answered again,
/// at once.
///
/// # Errors
/// `NotFound` also for an upload whose lease ran out; `UploadPaused` at the end of a stream without a finish; `UploadFenced`
/// when somebody else went on with it meanwhile; all that a single stream may be refused for.
pub async fn resume<S>(app: &Arc<App>, caller: &Caller, id: UploadId, messages: S) -> Result<Uploaded, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let uploaded = run(app, caller, id, messages).await;
    count_outcome(app, &uploaded);
    uploaded
}

async fn run<S>(app: &Arc<App>, caller: &Caller, id: UploadId, messages: S) -> Result<Uploaded, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let Taken { stored, persisted, limits } = match take_over(app, caller, id).await? {
        Some(taken) => taken,
        None => return answered(app, caller, id).await.map(uploaded),
    };
    let open = OpenUpload::resumed(app, caller, &stored)?;
    let sniffed = stored.sniffed_mime_type.as_deref();
    let content = Content::resumed(&stored.spec, limits, &app.hashing, &persisted, sniffed)?;
    // It is committed under its own id: whoever finishes it again gets the same answer.
    let spec = CheckedSpec { request_id: Some(request_id(id)), ..stored.spec };
    let sink = Sink::Store { target: Box::new(open.target().clone()), open: Some(open) };
    let received = receive(app, caller, content, sink, persisted, messages).await?;
    store(app, caller, spec, received).await
}

/// An upload that is ours now.
pub(super) struct Taken {
    pub(super) stored: StoredUpload,
    pub(super) persisted: Persisted,
    pub(super) limits: (FileSizeLimits, TakenTypes),
}

/// Takes an open upload over; answers nothing for one that was committed.
pub(super) async fn take_over(app: &App, caller: &Caller, id: UploadId) -> Result<Option<Taken>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let taken = take(app, &mut tx, caller, id).await;
    tx.finish(taken).await
}

async fn take(app: &App, tx: &mut TenantTx, caller: &Caller, id: UploadId) -> Result<Option<Taken>, Error> {
    resumable_uploads::take_over(tx, id, lease_seconds(app)).await?;
    let stored = resumable_uploads::get(tx, id).await?;
    // Its creator alone: the file will be theirs.
    let stored = stored.filter(|stored| stored.upload.created_by == caller.actor.id);
    let stored = stored.ok_or(Error::NotFound("upload"))?;
    if stored.is_direct {
        return Err(Error::UploadIsDirect);
    }
    if stored.upload.state == UploadState::Committed {
        return Ok(None);
    }
    let persisted = Persisted::of(upload_parts::list(tx, id).await?);
    // What lies behind a gap was written when other bytes may have been in front of it, and its digest with them.
    upload_parts::forget_from(tx, stored.lease, persisted.next_number()).await?;
    let limits = (quotas::get(tx).await?.file_size_max_bytes, stored.spec.types.clone());
    Ok(Some(Taken { stored, persisted, limits }))
}
