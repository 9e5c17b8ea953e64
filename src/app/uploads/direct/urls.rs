//! The URLs of a direct upload. They are signed when they are asked for and kept nowhere: whoever has one can write.

use crate::{
    app::{App, Error},
    db::{Viewer, resumable_uploads},
    domain::{caller::Caller, clock::Timestamp, ids::UploadId, upload::UploadState},
    storage::{MultipartId, PresignRequest, PresignedUrl},
};

/// Where the bytes of a direct upload go.
#[derive(Debug)]
pub struct DirectUrls {
    /// What to send.
    pub parts: Vec<DirectPart>,
    /// When the URLs expire.
    pub expire_time: Timestamp,
}

/// One request to the store.
#[derive(Debug)]
pub struct DirectPart {
    /// Which part, from 1.
    pub number: u32,
    /// Where in the file it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// Where it goes.
    pub url: PresignedUrl,
}

/// Fresh URLs of all parts, for the upload's creator; nothing when it is a file already.
///
/// # Errors
/// `NotFound`, also for an upload of somebody else; `UploadNotDirect`; `DirectUploadUnsupported`.
pub async fn direct_urls(app: &App, caller: &Caller, id: UploadId) -> Result<Option<DirectUrls>, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let stored = resumable_uploads::get(&mut tx, id).await.map_err(Error::from);
    let stored = tx.finish(stored).await?;
    let stored = stored.filter(|stored| stored.upload.created_by == caller.actor.id);
    let stored = stored.ok_or(Error::NotFound("upload"))?;
    if !stored.is_direct {
        return Err(Error::UploadNotDirect);
    }
    if stored.upload.state != UploadState::Open {
        return Ok(None);
    }
    let store = app.stores.of(&stored.provider)?;
    let expires_in = app.limits.uploads.direct_urls_live();
    let size_bytes = stored.upload.size_bytes.unwrap_or_default();
    let part_size_bytes = stored.upload.part_size_bytes;
    let expire_time = app.clock.now() + expires_in;
    let count = size_bytes.div_ceil(part_size_bytes).max(1);
    let mut parts = Vec::new();
    for (number, place) in (1..).zip(0..count) {
        let offset = place * part_size_bytes;
        let request = match &stored.staging_key {
            Some(key) => PresignRequest::Put { key: key.clone(), expires_in, content_type: None },
            None => PresignRequest::Part {
                key: stored.key.clone(),
                multipart: MultipartId::new(stored.multipart_id.as_str()),
                number,
                expires_in,
            },
        };
        let url = store.presign(&request).await?.ok_or(Error::DirectUploadUnsupported)?;
        parts.push(DirectPart { number, offset, size_bytes: part_size_bytes.min(size_bytes - offset), url });
    }
    Ok(Some(DirectUrls { parts, expire_time }))
}
