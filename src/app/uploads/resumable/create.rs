//! Creates an upload before its bytes: everything is checked and the room is reserved, so that what can be refused is refused
//! before a byte travels.

use std::sync::Arc;

use tracing::Instrument as _;

use crate::{
    app::{
        App, Error, idempotency,
        uploads::{
            direct,
            open::OpenUpload,
            record::{payload, record, resumable},
            refusals::count_refusal,
            target::target,
            upload::{admit, read_terms},
            version,
        },
    },
    db::{Viewer, idempotency_keys::Method},
    domain::{
        caller::Caller,
        clock::Timestamp,
        ids::RequestId,
        upload::Upload,
        upload_spec::{CheckedSpec, UploadSpec},
    },
    storage::PART_NUMBER_MAX,
};

/// Creates an upload.
///
/// # Errors
/// `Invalid`, `ScanRequired`; `QuotaBytes`, `QuotaFiles`, `FileTooLarge`; `RequestIdReused`; `DirectUploadUnsupported`.
pub async fn create(
    app: &Arc<App>,
    caller: &Caller,
    spec: UploadSpec,
    is_direct: bool,
) -> Result<Upload, Error> {
    let spec = if is_direct { direct::create::demands(spec) } else { spec };
    let request_id = spec.request_id.parse::<RequestId>().ok();
    let terms = read_terms(app, caller, request_id).await?;
    if let Some(stored) = terms.answered {
        let spec = spec.check(&caller.tenant.policy, Timestamp::MIN_UTC)?;
        return idempotency::replay_of(stored, Method::CreateUpload, &payload(caller, &spec, is_direct));
    }
    let spec = admit(app, caller, spec, &terms.quota);
    let spec = spec.inspect_err(|error| count_refusal(&app.metrics, error))?;
    if is_direct {
        direct::create::check_store(app)?;
    }
    let spec = version::of_file(app, caller, spec).await?;
    check_parts(app, &spec)?;
    // In a task of its own: a client that leaves while the row is being committed must not be cleaned up after before it is
    // there.
    let (app, caller) = (Arc::clone(app), caller.clone());
    let tasks = app.tasks.clone();
    let creating = async move { reserve(&app, &caller, spec, is_direct).await };
    tasks.spawn(creating.in_current_span()).await.map_err(Error::internal)?
}

async fn reserve(
    app: &Arc<App>,
    caller: &Caller,
    spec: CheckedSpec,
    is_direct: bool,
) -> Result<Upload, Error> {
    if is_direct {
        return direct::create::reserve(app, caller, spec).await;
    }
    let target = target(app, caller, &spec)?;
    let open = OpenUpload::start(app, caller, target, spec.size_bytes.unwrap_or_default()).await?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let created = record(
        app,
        &mut tx,
        caller,
        open.row(caller, Some(resumable(&spec, open.part_size_bytes() as u64)?)),
        &spec,
    )
    .await;
    let (upload, is_new) =
        tx.finish(created).await.inspect_err(|error| count_refusal(&app.metrics, error))?;
    if is_new {
        open.kept();
    }
    Ok(upload)
}

/// Stores put at most so many parts together.
fn check_parts(app: &App, spec: &CheckedSpec) -> Result<(), Error> {
    let most = u64::from(PART_NUMBER_MAX) * app.limits.uploads.part_size_bytes as u64;
    match spec.size_bytes {
        Some(size) if size > most => {
            Err(Error::too_large(None, size, i64::try_from(most).unwrap_or(i64::MAX)))
        }
        Some(_) | None => Ok(()),
    }
}
