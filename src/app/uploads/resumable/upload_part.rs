//! Stores one whole part of an upload, for clients that cannot stream.

use std::sync::Arc;

use super::{
    get::get_upload,
    resume::{OwnedUpload, Purpose, TakenUpload, take_over},
};
use crate::{
    app::{
        App, Error,
        quotas::trash::explain_shortage,
        uploads::{
            open::OpenUpload,
            receive::{content::ContentInspector, message::PartMessage, receive_part},
        },
    },
    domain::{caller::Caller, ids::UploadId, upload::Upload, violations::Violations},
};

/// Stores a part, or compares it with the stored part at that offset, also if the upload was committed. Returns
/// the upload with its new progress.
///
/// # Errors
/// Returns `NotFound`, `OffsetGap`, `ChecksumMismatch`, `ResentBytesDiffer`, `SizeMismatch` if bytes follow
/// the last part, and any error of `upload_file`.
pub async fn upload_part(
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    part: PartMessage,
) -> Result<Upload, Error> {
    let stored = store_part(app, caller, id, part).await;
    explain_shortage(app, caller, stored).await
}

async fn store_part(
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    part: PartMessage,
) -> Result<Upload, Error> {
    let OwnedUpload { stored, persisted, limits } = match take_over(app, caller, id, Purpose::AddPart).await?
    {
        TakenUpload::Open(owned) => *owned,
        TakenUpload::Committed(parts) => {
            parts.compare_part(app, caller, part).await?;
            return get_upload(app, caller, id).await;
        }
    };
    let (len_bytes, part_size_bytes) = (part.data.len() as u64, stored.upload.part_size_bytes);
    if len_bytes > part_size_bytes {
        let problem =
            format!("has {len_bytes} bytes; a part of this upload has at most {part_size_bytes} bytes");
        return Err(Violations::one("data", problem).into());
    }
    let open = OpenUpload::from_stored(app, caller, &stored)?;
    let sniffed = stored.sniffed_mime_type.as_deref();
    let content =
        ContentInspector::resume(&stored.spec, limits, &app.hashing.share_of(caller), &persisted, sniffed)?;
    let persisted_size_bytes = receive_part(app, caller, content, open, persisted, part).await?;
    Ok(Upload { persisted_size_bytes, ..stored.upload })
}
