//! Creates an upload before its bytes. Everything is checked and the quota is reserved first, so that an
//! upload is rejected before any bytes are received.

use std::sync::Arc;

use tracing::Instrument as _;

use crate::{
    app::{
        App, Error, idempotency,
        quotas::trash::explain_shortage,
        uploads::{
            admit::{
                check_admission, check_credits, check_target_again, new_target, read_admission_data,
                resolve_spec,
            },
            direct,
            error::{check_fits_parts, count_refusal},
            open::{
                OpenUpload,
                record::{idempotency_payload, insert_resumable_upload, resumable_columns},
            },
        },
    },
    db::{Viewer, idempotency_keys::Method},
    domain::{
        caller::Caller,
        clock::Timestamp,
        ids::RequestId,
        upload::Upload,
        upload_spec::{ResolvedSpec, UploadSpec},
    },
    storage::PartLayout,
};

/// Creates an upload.
///
/// # Errors
/// Returns `Invalid`, `ScanRequired`, `CreditsExhausted`, `QuotaBytes`, `QuotaFiles`, `FileTooLarge`,
/// `RequestIdReused` or `DirectUnsupported`.
pub async fn create_upload(
    app: &Arc<App>,
    caller: &Caller,
    spec: UploadSpec,
    is_direct: bool,
) -> Result<Upload, Error> {
    let created = admit_and_reserve(app, caller, spec, is_direct).await;
    explain_shortage(app, caller, created).await
}

async fn admit_and_reserve(
    app: &Arc<App>,
    caller: &Caller,
    spec: UploadSpec,
    is_direct: bool,
) -> Result<Upload, Error> {
    let spec = if is_direct { direct::create::add_direct_violations(spec) } else { spec };
    let request_id = spec.request_id.parse::<RequestId>().ok();
    let admission = read_admission_data(app, caller, request_id).await?;
    if let Some(stored) = admission.response {
        let spec = spec.check(&caller.tenant.policy, Timestamp::MIN_UTC)?;
        let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
        let checked = check_target_again(&mut tx, caller, &spec).await;
        tx.finish(checked).await?;
        return idempotency::replay_response_of_fields(
            stored,
            Method::CreateUpload,
            &idempotency_payload(caller, &spec, is_direct),
        );
    }
    check_credits(app, caller).await?;
    let spec = check_admission(app, caller, spec, &admission.quota);
    let spec = spec.inspect_err(|error| count_refusal(&app.metrics, error))?;
    if is_direct {
        direct::create::check_store_supports_urls(app)?;
    }
    let spec = resolve_spec(app, caller, spec).await?;
    if !is_direct {
        let layout = PartLayout::equal(app.limits.uploads.part_size_bytes as u64);
        check_fits_parts(spec.checked.size_bytes.unwrap_or_default(), layout)?;
    }
    // Runs in a separate task: if the client disconnects while the row is being committed, cleanup must not
    // run before the row exists.
    let (app, caller) = (Arc::clone(app), caller.clone());
    let tasks = app.tasks.clone();
    let creating = async move { reserve_upload(&app, &caller, spec, is_direct).await };
    tasks.spawn(creating.in_current_span()).await.map_err(Error::internal)?
}

async fn reserve_upload(
    app: &Arc<App>,
    caller: &Caller,
    spec: ResolvedSpec,
    is_direct: bool,
) -> Result<Upload, Error> {
    if is_direct {
        return direct::create::reserve_direct_upload(app, caller, spec).await;
    }
    let target = new_target(app, caller, &spec)?;
    let open = OpenUpload::start(app, caller, target, spec.checked.size_bytes.unwrap_or_default()).await?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let created = insert_resumable_upload(
        app,
        &mut tx,
        caller,
        open.to_row(caller, Some(resumable_columns(&spec, open.layout().part_size_bytes())?)),
        &spec,
    )
    .await;
    let (upload, is_new) =
        tx.finish(created).await.inspect_err(|error| count_refusal(&app.metrics, error))?;
    if is_new {
        open.disarm();
    }
    Ok(upload)
}
