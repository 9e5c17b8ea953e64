//! Uploads one file in a single stream: checks the spec, receives the bytes, stores them, and commits.

use std::sync::Arc;

use futures::Stream;

use super::{
    commit::{CommitReceipt, CommittedUpload, PendingCommit, replay_upload},
    open::OpenUpload,
    receive::{
        ReceivedBytes, ReceivedStream, Sink,
        content::{ContentInspector, ContentSummary, check_size},
        message::UploadMessage,
        persisted::PersistedParts,
        receive_stream,
    },
    refusals::count_refusal,
    target::{Target, delete_object, new_target},
    target_file::resolve_spec,
    warnings::content_warnings,
};
use crate::{
    app::{App, Error, access::can_write_all, audit, idempotency, uploads::UploadError},
    db::{
        audit_entries::AuditAction,
        blobs::Blob,
        commit::{AdmissionData, FinishedDestination},
        idempotency_keys::{RequestKey, StoredResponse},
        uploads::UploadLease,
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        digest::ObjectHashes,
        file::{ContentState, ScanStatus, VersionContent},
        ids::{FileId, RequestId},
        import_origin::ImportOrigin,
        policy::{FileSizeLimits, Policy, ScanRule},
        quota::Quota,
        upload_destination::{ContentRules, Destination},
        upload_spec::{CheckedSpec, ResolvedSpec, UploadSpec},
    },
    telemetry::metrics::UploadOutcome,
};

/// Uploads one file. `messages` ends (`None`) when the client's stream ends, whether it completed or broke:
/// only an explicit finish message commits. Dropping the future abandons the upload unless the commit has
/// started.
///
/// # Errors
/// Returns any error that the API documents for `UploadFile`. On error nothing becomes visible and nothing is
/// left behind.
pub async fn upload_file<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: UploadSpec,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let uploaded = receive_and_commit(app, caller, spec, messages).await;
    count_outcome(app, &uploaded);
    uploaded
}

/// Counts how an upload ended, by outcome.
pub(super) fn count_outcome(app: &App, uploaded: &Result<CommittedUpload, Error>) {
    app.metrics.count_upload(match uploaded {
        Ok(_) => UploadOutcome::Committed,
        Err(Error::Upload(
            UploadError::NotFinished | UploadError::Paused { .. } | UploadError::Stalled(_),
        )) => UploadOutcome::Abandoned,
        Err(
            Error::Internal(_)
            | Error::StorageUnavailable(_)
            | Error::DatabaseUnavailable(_)
            | Error::OutcomeUnknown { .. }
            | Error::ObjectMissing
            | Error::ObjectDamaged,
        ) => UploadOutcome::Failed,
        Err(_) => UploadOutcome::Refused,
    });
}

async fn receive_and_commit<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: UploadSpec,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    // An invalid id is reported later, together with all other violations.
    let request_id = spec.request_id.parse::<RequestId>().ok();
    // A retry with a digest gets its response at the first message, so the request id is looked up before the
    // bytes arrive.
    let has_lookup = request_id.is_some() && spec.sha256.is_some();
    if !has_lookup
        && let Some(quota) = cached_quota(app, caller, &spec).await
        && let Ok(checked) = check_admission(app, caller, spec.clone(), &quota)
        && let Some(rules) = unrestricted_rules(&caller.tenant.policy, &checked)
    {
        let spec = ResolvedSpec { checked, rules };
        return upload_small_file(app, caller, spec, &quota, messages).await;
    }
    let admission = read_admission_data(app, caller, request_id).await?;
    // A retry gets the stored response, even if the time, the limits or the quota have changed since.
    if let Some(stored) = admission.response {
        let spec = spec.check(&caller.tenant.policy, Timestamp::MIN_UTC)?;
        return compare_and_replay(app, caller, spec, stored, messages).await;
    }
    let spec = check_admission(app, caller, spec, &admission.quota);
    let spec = spec.inspect_err(|error| count_refusal(&app.metrics, error))?;
    let spec = resolve_spec(app, caller, spec).await?;
    let limits = admission.quota.file_size_max_bytes;
    let sink = open_store_sink(app, caller, &spec).await?;
    let content = ContentInspector::new(&spec.checked, limits, Some(spec.rules.clone()), &app.hashing);
    let received = receive_stream(app, caller, content, sink, PersistedParts::default(), messages).await?;
    store_and_commit_in_task(app, caller, spec, received).await
}

/// Returns the rules for a new file if its category allows all types. Otherwise the allowed types may have
/// changed since a first attempt whose stored response was not looked up yet.
fn unrestricted_rules(policy: &Policy, spec: &CheckedSpec) -> Option<ContentRules> {
    match &spec.destination {
        Destination::NewFile(file) => Some(file.content_rules(policy)).filter(|rules| rules.types.is_any()),
        Destination::NewVersion(_) => None,
    }
}

/// Returns the recently cached quota if the file is known to be small.
async fn cached_quota(app: &App, caller: &Caller, spec: &UploadSpec) -> Option<Arc<Quota>> {
    // A version has to read its file anyway, so it can read the quota in the same round trip.
    spec.file_id.is_empty().then_some(())?;
    let part_size_bytes = i64::try_from(app.limits.uploads.part_size_bytes).unwrap_or(i64::MAX);
    spec.size_bytes.filter(|size| *size <= part_size_bytes)?;
    app.quota_cache.get(caller.tenant_id()).await
}

pub(in crate::app) async fn read_admission_data(
    app: &App,
    caller: &Caller,
    request_id: Option<RequestId>,
) -> Result<AdmissionData, Error> {
    let admission =
        app.db.read_admission_data(caller.tenant_id(), request_id, idempotency::retention_hours(app)).await?;
    app.quota_cache.insert(&admission.quota).await;
    Ok(admission)
}

/// Checks the spec, the scan rule and the quota before any bytes are received.
pub(in crate::app) fn check_admission(
    app: &App,
    caller: &Caller,
    spec: UploadSpec,
    quota: &Quota,
) -> Result<CheckedSpec, Error> {
    let spec = spec.check(&caller.tenant.policy, app.clock.now())?;
    check_scan_rule(app, caller)?;
    check_quota(quota, &spec)?;
    Ok(spec)
}

/// Uploads a small file without reading the database first. The commit looks up an earlier response and
/// checks the quota. Only a file that is too large for its media kind is rejected here, unless it was
/// committed before.
async fn upload_small_file<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: ResolvedSpec,
    quota: &Quota,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let sink = open_store_sink(app, caller, &spec).await?;
    let content = ContentInspector::new(&spec.checked, FileSizeLimits::NONE, None, &app.hashing);
    let received = receive_stream(app, caller, content, sink, PersistedParts::default(), messages).await?;
    let content = &received.content;
    let kind = Some(content.kind);
    if check_size(content.size_bytes, kind, &quota.file_size_max_bytes).is_err() {
        let admission = read_admission_data(app, caller, spec.checked.request_id).await?;
        if let Some(stored) = admission.response {
            let payload = spec.checked.fingerprint(&caller.actor.id, Some(received.sha256));
            return replay_upload(stored, payload);
        }
        let fits = check_size(content.size_bytes, kind, &admission.quota.file_size_max_bytes);
        fits.inspect_err(|error| count_refusal(&app.metrics, error))?;
    }
    store_and_commit_in_task(app, caller, spec, received).await
}

/// Returns the stored response to a retry. If the spec has no digest, the bytes are read to the end and
/// compared, but not stored.
async fn compare_and_replay<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: CheckedSpec,
    stored: StoredResponse,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let sha256 = match spec.sha256 {
        Some(sha256) => sha256,
        None => {
            let content = ContentInspector::new(&spec, FileSizeLimits::NONE, None, &app.hashing);
            let received =
                receive_stream(app, caller, content, Sink::Compare, PersistedParts::default(), messages)
                    .await?;
            received.sha256
        }
    };
    let payload = spec.fingerprint(&caller.actor.id, Some(sha256));
    replay_upload(stored, payload)
}

/// Rejects uploads if the policy requires a scan and no scanner is configured, unless the operator accepts
/// unscanned files.
fn check_scan_rule(app: &App, caller: &Caller) -> Result<(), Error> {
    match caller.tenant.policy.scan {
        ScanRule::Required if !app.limits.scanning.accept_unscanned => Err(Error::ScanRequired),
        ScanRule::Required | ScanRule::WhereConfigured | ScanRule::NotRequired => Ok(()),
    }
}

/// Rejects a file that cannot fit the quota before its bytes are received. The charge in the commit is the
/// final decision. A replay stores nothing, so it needs no quota.
fn check_quota(quota: &Quota, spec: &CheckedSpec) -> Result<(), Error> {
    let size = spec.size_bytes.unwrap_or_default();
    check_size(size, None, &quota.file_size_max_bytes)?;
    let needed = i64::try_from(size).unwrap_or(i64::MAX);
    let is_at_count =
        quota.file_count_max > 0 && quota.file_count + quota.reserved_file_count >= quota.file_count_max;
    // A version is charged for its bytes but does not count as another file.
    let is_over_count = is_at_count && spec.destination.kind().file_count() > 0;
    if needed > quota.available_bytes() || is_over_count {
        return Err(Error::quota_exceeded(quota, needed));
    }
    Ok(())
}

/// Opens the sink that stores received bytes. A file that is known to need several parts reserves its quota
/// before its first byte.
async fn open_store_sink(app: &Arc<App>, caller: &Caller, spec: &ResolvedSpec) -> Result<Sink, Error> {
    let target = new_target(app, caller, spec)?;
    let is_large = spec.checked.size_bytes.filter(|size| *size > app.limits.uploads.part_size_bytes as u64);
    let open = match is_large {
        Some(size) => Some(OpenUpload::open(app, caller, target.clone(), size).await?),
        None => None,
    };
    Ok(Sink::Store { target: Box::new(target), open })
}

/// Makes the bytes durable and the file visible. Runs in a separate task, so that a client that disconnects
/// now does not undo the upload.
pub(super) async fn store_and_commit_in_task(
    app: &Arc<App>,
    caller: &Caller,
    spec: ResolvedSpec,
    received: ReceivedStream,
) -> Result<CommittedUpload, Error> {
    let (app, caller) = (Arc::clone(app), caller.clone());
    let tasks = app.tasks.clone();
    let span = tracing::Span::current();
    let work = async move { store_and_commit(&app, &caller, spec, received).await };
    tasks.spawn(tracing::Instrument::instrument(work, span)).await.map_err(Error::internal)?
}

async fn store_and_commit(
    app: &Arc<App>,
    caller: &Caller,
    spec: ResolvedSpec,
    received: ReceivedStream,
) -> Result<CommittedUpload, Error> {
    let ReceivedStream { content, sha256, bytes } = received;
    let store_time = app.clock.now();
    let (target, open, crc64nvme) = match bytes {
        ReceivedBytes::Memory(target, part) => {
            let (body, permit) = part.into_body();
            let put = target.store.put(&target.key, body.clone(), &target.options).await;
            let crc64nvme = body.crc64nvme();
            drop((body, permit));
            if let Err(error) = put {
                // A write that returned an error may still have succeeded.
                delete_object(&target).await;
                return Err(error.into());
            }
            (*target, None, crc64nvme)
        }
        ReceivedBytes::Parts { open, receipts, crc64nvme } => {
            open.complete_multipart(&receipts).await?;
            (open.target().clone(), Some(open), crc64nvme)
        }
        ReceivedBytes::Compared => return Err(Error::internal("compared upload has no bytes to store")),
    };
    let lease = open.as_ref().map(|open| open.lease());
    let blob = target.to_blob(content.size_bytes, Some(ObjectHashes { sha256, crc64nvme }));
    let finished = new_pending_commit(app, caller, spec, &content, blob, lease, store_time);
    let has_request_id = finished.request.is_some();
    // A batch that was lost without an outcome may have committed.
    let committed = app.commits.submit(caller.tenant_id(), finished).await;
    let committed =
        committed.unwrap_or_else(|lost| Err(Error::OutcomeUnknown { has_request_id, source: lost.into() }));
    clean_up_after_commit(&target, open, &committed).await;
    committed.map(|receipt| receipt.upload)
}

/// Cleans up after the commit. A committed file keeps its object; otherwise the object is deleted. If the
/// outcome is unknown, everything is kept: an open upload is resolved when its lease expires, and an object
/// without a row is swept after the grace period.
async fn clean_up_after_commit(
    target: &Target,
    open: Option<Box<OpenUpload>>,
    committed: &Result<CommitReceipt, Error>,
) {
    match (committed, open) {
        (Ok(CommitReceipt { is_replay: false, .. }) | Err(Error::OutcomeUnknown { .. }), open) => {
            if let Some(open) = open {
                open.disarm();
            }
        }
        // The target file is gone, the caller may no longer change it, or its category or etag has changed. An
        // etag never recurs.
        (
            Err(Error::NotFound(_) | Error::NotAllowed(_) | Error::Invalid(_) | Error::EtagMismatch),
            Some(open),
        ) => open.abandon(),
        // Dropping the upload deletes the object and releases the reservation; a resumable upload stays open.
        (Ok(_) | Err(_), Some(open)) => drop(open),
        (Ok(_) | Err(_), None) => delete_object(target).await,
    }
}

pub(super) fn new_pending_commit(
    app: &App,
    caller: &Caller,
    spec: ResolvedSpec,
    content: &ContentSummary,
    blob: Blob,
    lease: Option<UploadLease>,
    store_time: Timestamp,
) -> PendingCommit {
    let actor = &caller.actor.id;
    let ResolvedSpec { checked: spec, rules } = spec;
    let sha256 = blob.hashes.map(|hashes| hashes.sha256);
    let payload = spec.fingerprint(actor, sha256);
    // The commit adds the file and the version.
    let mut audit = audit::new_entry(caller, AuditAction::FileUpload);
    let destination = match spec.destination {
        Destination::NewFile(record) => {
            let import_origin = record.import_origin.as_ref();
            if let Some(ImportOrigin { source, legacy_id, .. }) = import_origin {
                audit.details = serde_json::json!({ "import_source": source, "legacy_id": legacy_id });
            }
            let owner_id = import_origin.map_or(actor, |import_origin| &import_origin.owner_id).clone();
            FinishedDestination::NewFile { id: FileId::from_uuid(app.ids.uuid()), owner_id, record }
        }
        Destination::NewVersion(version) => FinishedDestination::NewVersion {
            version,
            category: rules.category,
            may_write_all: can_write_all(caller),
        },
    };
    PendingCommit {
        tenant: caller.tenant_id(),
        destination,
        created_by: actor.clone(),
        content: VersionContent {
            content_state: ContentState::Available,
            scan_status: ScanStatus::NotScanned,
            mime_type: content.mime_type.mime_type.clone(),
            media_kind: content.kind,
            size_bytes: content.size_bytes,
            sha256,
            declared_mime_type: spec.declared_mime_type.clone(),
        },
        change_description: spec.change_description,
        warnings: content_warnings(&spec.declared_mime_type, content),
        request: spec.request_id.map(|id| RequestKey { id, payload }),
        blob,
        store_time,
        lease,
        verification: None,
        audit,
    }
}
