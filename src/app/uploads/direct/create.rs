//! Creates a direct upload: its room is reserved, and its place in the store made.

use std::sync::Arc;

use super::place;
use crate::{
    app::{
        App, Error,
        uploads::{
            open::lease_seconds,
            record::{record, resumable},
            refusals::count_refusal,
            target::Target,
        },
    },
    db::{Viewer, uploads::NewUpload},
    domain::{
        caller::Caller,
        ids::{BlobId, UploadId},
        object_key::ObjectKey,
        upload::Upload,
        upload_spec::{CheckedSpec, UploadSpec},
    },
    storage::{MultipartId, PART_SIZE_BYTES_MAX},
};

/// The most URLs of one upload: their answer stays well below the message size that clients take.
const PARTS_MAX: u64 = 1_000;

/// What a direct upload demands of its spec, noted with all else that is wrong with it.
pub(in crate::app::uploads) fn demands(mut spec: UploadSpec) -> UploadSpec {
    if spec.size_bytes.is_none() {
        spec.unreadable.add("spec.size_bytes", "is required for a direct upload");
    }
    if spec.size_bytes.is_some_and(|size| u64::try_from(size).is_ok_and(|size| size > size_max())) {
        spec.unreadable.add("spec.size_bytes", format!("of a direct upload must be at most {}", size_max()));
    }
    spec
}

const fn size_max() -> u64 {
    PARTS_MAX * PART_SIZE_BYTES_MAX
}

/// Whether the store that is written to gives URLs.
pub(in crate::app::uploads) fn check_store(app: &App) -> Result<(), Error> {
    match app.stores.writing().capabilities().presigned_urls {
        true => Ok(()),
        false => Err(Error::DirectUploadUnsupported),
    }
}

/// Reserves the room of a direct upload, and makes its place in the store.
pub(in crate::app::uploads) async fn reserve(
    app: &Arc<App>,
    caller: &Caller,
    spec: CheckedSpec,
) -> Result<Upload, Error> {
    let target = place(app, caller, &spec)?;
    let size_bytes = spec.size_bytes.ok_or_else(|| Error::internal("a direct upload without a size"))?;
    let put_max_bytes = app.limits.uploads.direct_put_max_bytes;
    let part_size_bytes = put_max_bytes.max(size_bytes.div_ceil(PARTS_MAX));
    let (multipart, staging_key) = match size_bytes <= put_max_bytes {
        true => (None, Some(staging(app, caller, &spec.category)?)),
        false => {
            let multipart =
                target.store.start_multipart(&target.key, part_size_bytes, &target.options).await?;
            (Some(multipart), None)
        }
    };
    let row = NewUpload {
        id: UploadId::from_uuid(app.ids.uuid()),
        blob_id: target.blob_id,
        provider: target.store.provider().to_owned(),
        key: target.key.clone(),
        multipart_id: multipart.as_ref().map(|id| id.as_str().to_owned()),
        reserved_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX),
        lease_seconds: lease_seconds(app),
        created_by: caller.actor.id.clone(),
        is_version: target.is_version,
        is_direct: true,
        staging_key,
        resumable: Some(resumable(&spec, part_size_bytes)?),
    };
    let recorded = write(app, caller, row, &spec).await;
    let is_kept = matches!(recorded, Ok((_, true)));
    if let Some(multipart) = multipart.filter(|_| !is_kept) {
        drop_multipart(&target, &multipart).await;
    }
    recorded.map(|(upload, _)| upload)
}

async fn write(
    app: &App,
    caller: &Caller,
    row: NewUpload,
    spec: &CheckedSpec,
) -> Result<(Upload, bool), Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let created = record(app, &mut tx, caller, row, spec).await;
    tx.finish(created).await.inspect_err(|error| count_refusal(&app.metrics, error))
}

/// Nothing was handed out yet that could write to it. A commit whose answer was lost leaves a row of an upload that nobody
/// knows and that expires.
async fn drop_multipart(target: &Target, multipart: &MultipartId) {
    if let Err(error) = target.store.abort_multipart(&target.key, multipart).await {
        tracing::warn!(key = %target.key, %error, "abort multipart upload");
    }
}

/// A key that is written before the copy: made like any other, so that the sweeper knows whose it is.
fn staging(app: &App, caller: &Caller, category: &str) -> Result<ObjectKey, Error> {
    let day = app.clock.now().date_naive();
    let id = BlobId::from_uuid(app.ids.uuid());
    ObjectKey::for_blob(&app.limits.key_prefix, caller.tenant_id(), category, day, id)
        .map_err(Error::internal)
}
