//! Stores one whole part of an upload, for clients that cannot stream.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    content::Content,
    get::get,
    open::OpenUpload,
    receive::receive_part,
    resume::{Taken, take_over},
};
use crate::{
    app::{App, Error},
    domain::{caller::Caller, ids::UploadId, upload::Upload, violations::Violations},
};

/// A part as it came in.
#[derive(Debug)]
pub struct PartMessage {
    /// Where in the file it begins.
    pub offset: i64,
    /// Its bytes.
    pub data: Bytes,
    /// Their CRC32C, where the client sent it.
    pub crc32c: Option<u32>,
}

/// Stores a part, or compares it with the one that is stored; answers the upload with it.
///
/// # Errors
/// `NotFound`; `OffsetGap`; `ChecksumMismatch`, `SentAgainDiffers`, `SizeMismatch` behind a last part; what a stream may be
/// refused for.
pub async fn upload_part(
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    part: PartMessage,
) -> Result<Upload, Error> {
    let Some(Taken { stored, persisted, limits }) = take_over(app, caller, id).await? else {
        return get(app, caller, id).await;
    };
    if part.data.len() as u64 > stored.upload.part_size_bytes {
        let wrong = format!(
            "must have at most the part's {} bytes, has {}",
            stored.upload.part_size_bytes,
            part.data.len()
        );
        return Err(Violations::one("data", wrong).into());
    }
    let open = OpenUpload::resumed(app, caller, &stored)?;
    let sniffed = stored.sniffed_mime_type.as_deref();
    let content = Content::resumed(&stored.spec, limits, &app.hashing, &persisted, sniffed)?;
    let persisted_size_bytes = receive_part(app, caller, content, open, persisted, part).await?;
    Ok(Upload { persisted_size_bytes, ..stored.upload })
}
