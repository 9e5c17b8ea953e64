//! Uploads one file in a single stream: checks the spec, receives the bytes, stores them, and commits.

use std::sync::Arc;

use futures::Stream;

use super::{
    admit::{
        Admission, AdmissionBasis, AdmittedUpload, Target, admit_upload, delete_object, read_admission_data,
    },
    commit::{CommitReceipt, CommittedUpload, PendingCommit, replay_upload},
    error::{check_size, count_outcome, count_refusal},
    open::OpenUpload,
    receive::{
        ReceivedBytes, ReceivedStream, content::ContentSummary, message::UploadMessage, receive_to_compare,
        receive_upload,
    },
    warnings::content_warnings,
};
use crate::{
    app::{App, Error, access::can_write_all, audit},
    db::{
        audit_entries::AuditAction,
        blobs::Blob,
        commit::FinishedDestination,
        idempotency_keys::{RequestKey, StoredResponse},
        uploads::UploadLease,
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        digest::ObjectHashes,
        file::{ContentState, ScanStatus, VersionContent},
        ids::FileId,
        import_origin::ImportOrigin,
        upload_destination::Destination,
        upload_spec::{CheckedSpec, ResolvedSpec, UploadSpec},
    },
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
    let uploaded = run_stages(app, caller, spec, messages).await;
    count_outcome(app, &uploaded);
    uploaded
}

async fn run_stages<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: UploadSpec,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let admitted = match admit_upload(app, caller, spec).await? {
        Admission::Admitted(admitted) => *admitted,
        Admission::Replay { spec, stored } => {
            return compare_and_replay(app, caller, &spec, stored, messages).await;
        }
    };
    let received = receive_upload(app, caller, &admitted, messages).await?;
    if let Some(committed) = check_limits_after_receipt(app, caller, &admitted, &received).await? {
        return Ok(committed);
    }
    store_and_commit_in_task(app, caller, admitted.spec, received).await
}

/// Checks the size of a file that was admitted with a cached quota, whose limits may have changed. Returns the
/// stored response if the file is too large for its media kind but was committed before.
async fn check_limits_after_receipt(
    app: &App,
    caller: &Caller,
    AdmittedUpload { spec, basis, .. }: &AdmittedUpload,
    received: &ReceivedStream,
) -> Result<Option<CommittedUpload>, Error> {
    let AdmissionBasis::CachedQuota(quota) = basis else { return Ok(None) };
    let (size_bytes, kind) = (received.content.size_bytes, Some(received.content.kind));
    if check_size(size_bytes, kind, &quota.file_size_max_bytes).is_ok() {
        return Ok(None);
    }
    let admission = read_admission_data(app, caller, spec.checked.request_id).await?;
    if let Some(stored) = admission.response {
        let payload = spec.checked.fingerprint(&caller.actor.id, Some(received.sha256));
        return replay_upload(stored, payload).map(Some);
    }
    let fits = check_size(size_bytes, kind, &admission.quota.file_size_max_bytes);
    fits.inspect_err(|error| count_refusal(&app.metrics, error))?;
    Ok(None)
}

/// Returns the stored response to a retry. If the spec has no digest, the bytes are read to the end and
/// compared, but not stored.
async fn compare_and_replay<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: &CheckedSpec,
    stored: StoredResponse,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let sha256 = match spec.sha256 {
        Some(sha256) => sha256,
        None => receive_to_compare(app, caller, spec, messages).await?,
    };
    let payload = spec.fingerprint(&caller.actor.id, Some(sha256));
    replay_upload(stored, payload)
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
