//! The URLs of a direct upload. They are signed on request and never stored: anyone who has a URL can write.

use super::part_count;
use crate::{
    admission::Holder,
    app::{
        App, Error, Resource,
        uploads::{UploadError, admit::check_target_again, open::abandon::abandon_if_refused},
    },
    db::{
        TenantTx, Viewer,
        resumable_uploads::{self, StoredUpload, UploadedBytes},
    },
    domain::{caller::Caller, clock::Timestamp, ids::UploadId, upload::UploadState},
    storage::{MultipartId, PresignRequest, PresignedUrl},
};

/// The URLs of a direct upload.
#[derive(Debug)]
pub struct DirectUrls {
    /// One request per part, in order.
    pub parts: Vec<DirectPart>,
    /// When the URLs expire.
    pub expire_time: Timestamp,
}

/// The request that sends one part to the store.
#[derive(Debug)]
pub struct DirectPart {
    /// The part number, from 1.
    pub number: u32,
    /// The offset of the part in the file, in bytes.
    pub offset: u64,
    /// The size of the part.
    pub size_bytes: u64,
    /// The presigned request.
    pub url: PresignedUrl,
}

/// Signs new URLs for all parts of an upload, for its creator. Returns `None` if the upload was already
/// committed.
///
/// # Errors
/// Returns `NotFound`, also for an upload of another user, `NotDirect`, or `DirectUnsupported`.
pub async fn presign_upload_urls(
    app: &App,
    caller: &Caller,
    id: UploadId,
) -> Result<Option<DirectUrls>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let stored = find_open_upload(&mut tx, caller, id).await;
    let stored = abandon_if_refused(app, caller, id, tx.finish(stored).await).await;
    let Some(stored) = stored? else { return Ok(None) };
    let store = app.stores.get_for(&stored.provider, Holder::of_caller(caller))?;
    let expires_in = app.limits.uploads.direct_url_lifetime();
    let size_bytes = stored.upload.size_bytes.unwrap_or_default();
    let part_size_bytes = stored.upload.part_size_bytes;
    let expire_time = app.clock.now() + expires_in;
    let count = part_count(&stored.upload, size_bytes);
    let mut parts = Vec::new();
    for (number, index) in (1..).zip(0..count) {
        let offset = index * part_size_bytes;
        let size_bytes = part_size_bytes.min(size_bytes - offset);
        let request = match &stored.bytes {
            UploadedBytes::Staged(key) => {
                PresignRequest::Put { key: key.clone(), size_bytes, expires_in, content_type: None }
            }
            UploadedBytes::Multipart(id) => PresignRequest::Part {
                key: stored.key.clone(),
                multipart: MultipartId::new(id.as_str()),
                number,
                size_bytes,
                expires_in,
            },
        };
        let url = store.presign(&request).await?.ok_or(UploadError::DirectUnsupported)?;
        parts.push(DirectPart { number, offset, size_bytes, url });
    }
    Ok(Some(DirectUrls { parts, expire_time }))
}

/// Returns the caller's direct upload, or `None` if it is not open.
async fn find_open_upload(
    tx: &mut TenantTx,
    caller: &Caller,
    id: UploadId,
) -> Result<Option<StoredUpload>, Error> {
    let stored = resumable_uploads::get(tx, id).await?;
    let stored = stored.filter(|stored| stored.upload.created_by == caller.actor.id);
    let stored = stored.ok_or(Error::NotFound(Resource::Upload))?;
    if !stored.is_direct {
        return Err(UploadError::NotDirect.into());
    }
    if stored.upload.state != UploadState::Open {
        return Ok(None);
    }
    check_target_again(tx, caller, &stored.spec.checked).await?;
    Ok(Some(stored))
}
