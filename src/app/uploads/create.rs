//! Creates an upload before its bytes: everything is checked and the room is reserved, so that what can be refused is refused
//! before a byte travels.

use std::sync::Arc;

use tracing::Instrument as _;

use super::{
    commit::count_refusal,
    direct,
    open::{OpenUpload, insert, target},
    upload::{admit, read_terms},
    version,
};
use crate::{
    app::{
        App, Error, audit,
        idempotency::{self, Begun},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        idempotency_keys::Method,
        resumable_uploads,
        uploads::{NewUpload, Resumable},
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        digest::Digest,
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
    let spec = if is_direct { direct::demands(spec) } else { spec };
    let request_id = spec.request_id.parse::<RequestId>().ok();
    let terms = read_terms(app, caller, request_id).await?;
    if let Some(stored) = terms.answered {
        let spec = spec.check(&caller.tenant.policy, Timestamp::MIN_UTC)?;
        return idempotency::replay_of(stored, Method::CreateUpload, &payload(caller, &spec, is_direct));
    }
    let spec = admit(app, caller, spec, &terms.quota);
    let spec = spec.inspect_err(|error| count_refusal(&app.metrics, error))?;
    if is_direct {
        direct::check_store(app)?;
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
        return direct::reserve(app, caller, spec).await;
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

/// Answers the upload, and whether it is this one: with the same request id another may have been first.
pub(super) async fn record(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    row: NewUpload,
    spec: &CheckedSpec,
) -> Result<(Upload, bool), Error> {
    let payload = payload(caller, spec, row.is_direct);
    let attempt = match idempotency::begin(app, tx, spec.request_id, Method::CreateUpload, &payload).await? {
        Begun::Replay(upload) => return Ok((upload, false)),
        Begun::Fresh(attempt) => attempt,
    };
    let mut entry = audit::entry(caller, AuditAction::UploadCreate, None);
    entry.details = serde_json::json!({ "upload_id": row.id });
    audit_entries::insert(tx, &[entry]).await?;
    insert(tx, &row).await?;
    let stored = resumable_uploads::get(tx, row.id).await?;
    let upload = stored.ok_or_else(|| Error::internal("a created upload is not there"))?.upload;
    if let Some(attempt) = attempt {
        attempt.record(tx, &upload).await?;
    }
    Ok((upload, true))
}

/// Stores put at most so many parts together.
fn check_parts(app: &App, spec: &CheckedSpec) -> Result<(), Error> {
    let most = u64::from(PART_NUMBER_MAX) * app.limits.uploads.part_size_bytes as u64;
    match spec.size_bytes.is_some_and(|size| size > most) {
        true => Err(Error::too_large(None, i64::try_from(most).unwrap_or(i64::MAX))),
        false => Ok(()),
    }
}

/// What it takes to go on with it.
pub(super) fn resumable(spec: &CheckedSpec, part_size_bytes: u64) -> Result<Resumable, Error> {
    let part_size_bytes = i64::try_from(part_size_bytes).map_err(Error::internal)?;
    Ok(Resumable { spec: serde_json::to_value(spec).map_err(Error::internal)?, part_size_bytes })
}

/// What stands for this upload when its request id comes again.
fn payload(caller: &Caller, spec: &CheckedSpec, is_direct: bool) -> [Vec<u8>; 2] {
    let said = spec.sha256.unwrap_or_else(|| Digest::of(&[]));
    let fingerprint = spec.fingerprint(&caller.actor.id, said);
    let door = if is_direct { " direct" } else { "" };
    let rest = format!("{:?} {}{door}", spec.size_bytes, spec.sha256.is_some());
    [fingerprint.as_bytes().to_vec(), rest.into_bytes()]
}
