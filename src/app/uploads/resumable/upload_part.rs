//! Stores one whole part of an upload, for clients that cannot stream.

use std::sync::Arc;

use super::{
    get::get,
    resume::{Taken, take_over},
};
use crate::{
    app::{
        App, Error,
        uploads::{
            open::OpenUpload,
            receive::{content::Content, message::PartMessage, receive_part},
        },
    },
    domain::{caller::Caller, ids::UploadId, upload::Upload, violations::Violations},
};

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
