//! Creates a direct upload: reserves its quota and prepares the store.

use std::sync::Arc;

use super::new_direct_target;
use crate::{
    app::{
        App, Error,
        owner::delete::{Deletion, delete_from_store},
        uploads::{
            UploadError,
            admit::Target,
            error::count_refusal,
            open::{
                lease_seconds,
                record::{insert_resumable_upload, resumable_columns},
            },
        },
    },
    db::{Viewer, uploads::NewUpload},
    domain::{
        caller::Caller,
        ids::{BlobId, UploadId},
        object_key::ObjectKey,
        upload::Upload,
        upload_spec::{ResolvedSpec, UploadSpec},
    },
    storage::{MultipartId, PART_SIZE_BYTES_MAX},
};

/// The maximum number of URLs of one upload. It keeps the response well below the message size limit of
/// clients.
pub(in crate::app) const PART_COUNT_MAX: u64 = 1_000;

/// Adds the violations of the rules that only direct uploads have.
pub(in crate::app::uploads) fn add_direct_violations(mut spec: UploadSpec) -> UploadSpec {
    if spec.size_bytes.is_none() {
        spec.parse_violations.add("spec.size_bytes", "is required for a direct upload");
    }
    if let Some(size) =
        spec.size_bytes.filter(|size| u64::try_from(*size).is_ok_and(|size| size > size_max_bytes()))
    {
        spec.parse_violations.add(
            "spec.size_bytes",
            format!("must be at most {} for a direct upload, is {size}", size_max_bytes()),
        );
    }
    spec
}

const fn size_max_bytes() -> u64 {
    PART_COUNT_MAX * PART_SIZE_BYTES_MAX
}

/// Returns whether the store for new blobs supports presigned URLs.
pub(in crate::app) fn is_supported(app: &App) -> bool {
    app.stores.primary().capabilities().presigned_urls
}

/// Checks that the store for new blobs supports presigned URLs.
pub(in crate::app::uploads) fn check_store_supports_urls(app: &App) -> Result<(), Error> {
    if is_supported(app) { Ok(()) } else { Err(UploadError::DirectUnsupported.into()) }
}

/// Inserts the row of a direct upload with its reservation, and starts its multipart upload if it has several
/// parts.
pub(in crate::app::uploads) async fn reserve_direct_upload(
    app: &Arc<App>,
    caller: &Caller,
    spec: ResolvedSpec,
) -> Result<Upload, Error> {
    let target = new_direct_target(app, caller, &spec)?;
    let size_bytes =
        spec.checked.size_bytes.ok_or_else(|| Error::internal("direct upload without a size"))?;
    let put_max_bytes = app.limits.uploads.direct_put_max_bytes;
    let part_size_bytes = put_max_bytes.max(size_bytes.div_ceil(PART_COUNT_MAX));
    let (multipart, staging_key) = match size_bytes <= put_max_bytes {
        true => (None, Some(new_staging_key(app, caller, &spec.rules.category)?)),
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
        owner: target.owner.clone(),
        destination: target.destination,
        is_direct: true,
        staging_key,
        resumable: Some(resumable_columns(&spec, part_size_bytes)?),
    };
    let recorded = insert_row(app, caller, row, &spec).await;
    let is_recorded = matches!(recorded, Ok((_, true)));
    if let Some(multipart) = multipart.filter(|_| !is_recorded) {
        abort_multipart(&target, &multipart).await;
    }
    recorded.map(|(upload, _)| upload)
}

async fn insert_row(
    app: &App,
    caller: &Caller,
    row: NewUpload,
    spec: &ResolvedSpec,
) -> Result<(Upload, bool), Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let created = insert_resumable_upload(app, &mut tx, caller, row, spec).await;
    tx.finish(created).await.inspect_err(|error| count_refusal(&app.metrics, error))
}

/// Aborts a multipart upload for which no URL was issued yet. If the response to COMMIT was lost, the row may
/// exist; no client received its id, so the upload expires.
async fn abort_multipart(target: &Target, multipart: &MultipartId) {
    let deletion = Deletion::Multipart(&target.key, multipart);
    if let Err(error) = delete_from_store(target.store.as_ref(), deletion).await {
        tracing::warn!(key = %target.key, %error, "failed to abort multipart upload");
    }
}

/// Returns a new staging key. It has the same form as any other key, so that the sweeper can attribute it to
/// its tenant.
fn new_staging_key(app: &App, caller: &Caller, category: &str) -> Result<ObjectKey, Error> {
    caller.note_object();
    let day = app.clock.now().date_naive();
    let id = BlobId::from_uuid(app.ids.uuid());
    ObjectKey::for_blob(&app.limits.key_prefix, caller.tenant_id(), category, day, id)
        .map_err(Error::internal)
}
