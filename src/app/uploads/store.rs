//! Stores the received bytes as one complete object: writes a small file, or completes the multipart upload of
//! a large one, whose parts were written while they were received.
//!
//! The next stage is `commit`.

use super::{
    admit::Target,
    error::map_multipart_error,
    open::OpenUpload,
    receive::{ReceivedBytes, ReceivedStream, content::ContentSummary},
};
use crate::{
    app::{App, Error, uploads::UploadError},
    db::{Viewer, upload_parts},
    domain::{caller::Caller, clock::Timestamp, digest::ObjectHashes},
    storage::{PartReceipt, Payload, StorageErrorKind},
};

/// Content that is complete and durable in its store, and that no row refers to yet.
pub(super) struct StoredContent {
    pub(super) content: ContentSummary,
    pub(super) hashes: ObjectHashes,
    pub(super) target: Target,
    /// The open upload, if any. A small file has none.
    pub(super) open: Option<Box<OpenUpload>>,
    /// When the last bytes were received. A small file is sent to the store after that.
    pub(super) store_time: Timestamp,
}

/// Stores the received bytes. If this fails, no object of a small file is left behind.
pub(super) async fn store_content(
    app: &App,
    caller: &Caller,
    received: ReceivedStream,
) -> Result<StoredContent, Error> {
    let ReceivedStream { content, sha256, bytes } = received;
    let store_time = app.clock.now();
    let (target, open, crc64nvme) = match bytes {
        ReceivedBytes::Memory(target, part) => {
            let (body, permit) = part.into_body();
            let put = target.store.put(&target.key, body.clone(), &target.options).await;
            let crc64nvme = body.crc64nvme();
            drop((body, permit));
            if let Err(error) = put {
                // A write that returned an error may still have succeeded.
                delete_object(&target).await;
                return Err(error.into());
            }
            (*target, None, crc64nvme)
        }
        ReceivedBytes::Parts { open, receipts, crc64nvme } => {
            complete_multipart(app, caller, &open, &receipts).await?;
            (open.target().clone(), Some(open), crc64nvme)
        }
        ReceivedBytes::Compared => return Err(Error::internal("compared upload has no bytes to store")),
    };
    let hashes = ObjectHashes { sha256, crc64nvme };
    Ok(StoredContent { content, hashes, target, open, store_time })
}

/// Completes the multipart upload of an open upload. Safe to repeat if the outcome of an earlier attempt is
/// unknown.
///
/// A part that differs from the recorded one was rewritten by a fenced writer. Its original bytes are lost, so
/// this deletes the rows of all parts, and the client must send them again.
async fn complete_multipart(
    app: &App,
    caller: &Caller,
    open: &OpenUpload,
    receipts: &[PartReceipt],
) -> Result<(), Error> {
    let Target { store, key, options, .. } = open.target();
    if receipts.is_empty() {
        // Stores cannot complete a multipart upload without parts. No other writer uses this key.
        return match store.put(key, Payload::default(), options).await {
            Err(error) if error.kind != StorageErrorKind::AlreadyExists => Err(error.into()),
            _ => Ok(store.abort_multipart(key, open.multipart()).await?),
        };
    }
    match store.complete_multipart(key, open.multipart(), receipts).await {
        Ok(_) => Ok(()),
        Err(error) if open.is_resumable() && error.kind == StorageErrorKind::InvalidInput => {
            tracing::warn!(upload = %open.lease().id, %error, "found parts in the store that differ from the recorded ones");
            let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
            let deleted = upload_parts::delete_from(&mut tx, open.lease(), 1).await;
            match tx.finish(deleted).await? {
                // Another writer has taken over the upload, and the parts belong to it.
                0 => Err(UploadError::Fenced.into()),
                _ => Err(UploadError::Paused { persisted_size_bytes: 0 }.into()),
            }
        }
        Err(error) => Err(map_multipart_error(error)),
    }
}

/// Deletes an object that no committed row refers to. A failure is logged: the sweeper deletes the object
/// later.
pub(super) async fn delete_object(target: &Target) {
    let key = &target.key;
    if let Err(error) = target.store.delete(key).await {
        tracing::warn!(%key, %error, "failed to delete object");
    }
}
