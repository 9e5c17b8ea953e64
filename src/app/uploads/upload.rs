//! Uploads one file: check the spec, receive the bytes, store them, commit.

use std::sync::Arc;

use futures::Stream;

use super::{
    commit::{Answer, Committed, FinishedUpload, replay_upload},
    open::OpenUpload,
    receive::{
        Place, Received, Sink,
        content::{Content, Measured, check_size},
        message::UploadMessage,
        persisted::Persisted,
        receive,
    },
    refusals::count_refusal,
    target::{Target, remove_object, target},
    version,
    warnings::{Warning, of_content, of_quota},
};
use crate::{
    app::{App, Error, access::writes_all, audit, idempotency},
    db::{
        audit_entries::AuditAction, blobs::Blob, commit::UploadTerms, idempotency_keys::StoredAnswer,
        uploads::UploadLease,
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        event_position::EventPosition,
        file::{ContentState, File, FileAccess, ScanStatus},
        ids::{FileId, RequestId},
        imported::Imported,
        policy::{FileSizeLimits, ScanRule, TakenTypes},
        quota::{Quota, QuotaState},
        upload_spec::{CheckedSpec, UploadSpec},
    },
    telemetry::metrics::UploadOutcome,
};

/// A file that is durable and visible.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// The file.
    pub file: File,
    /// The tenant's quota after it.
    pub quota: QuotaState,
    /// Remarks.
    pub warnings: Vec<Warning>,
    /// Where its event stands.
    pub event: EventPosition,
}

/// Uploads one file. The stream ends (`None`) when the client's stream did, finished or broken: only an explicit finish
/// message commits. Dropping the future gives up what was not committed, unless the commit has begun.
///
/// # Errors
/// Everything that the contract lists for `UploadFile`; nothing is visible and nothing is left behind.
pub async fn upload<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: UploadSpec,
    messages: S,
) -> Result<Uploaded, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let uploaded = run(app, caller, spec, messages).await;
    count_outcome(app, &uploaded);
    uploaded
}

/// Counts how a stream of an upload ended.
pub(super) fn count_outcome(app: &App, uploaded: &Result<Uploaded, Error>) {
    app.metrics.upload_ended(match uploaded {
        Ok(_) => UploadOutcome::Committed,
        Err(Error::UploadNotFinished | Error::UploadPaused { .. } | Error::UploadStalled(_)) => {
            UploadOutcome::Abandoned
        }
        Err(
            Error::Internal(_)
            | Error::StorageUnavailable(_)
            | Error::DatabaseUnavailable(_)
            | Error::OutcomeUnknown(_)
            | Error::ObjectMissing
            | Error::ObjectDamaged,
        ) => UploadOutcome::Failed,
        Err(_) => UploadOutcome::Refused,
    });
}

async fn run<S>(app: &Arc<App>, caller: &Caller, spec: UploadSpec, messages: S) -> Result<Uploaded, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    // What is no id is reported with everything else that is wrong.
    let request_id = spec.request_id.parse::<RequestId>().ok();
    if let Some(quota) = recent_quota(app, caller, &spec).await
        && let Ok(spec) = admit(app, caller, spec.clone(), &quota)
        // What is taken may have changed since a first try, whose answer nobody has looked for yet.
        && spec.types.is_any()
    {
        return upload_at_once(app, caller, spec, &quota, messages).await;
    }
    let terms = read_terms(app, caller, request_id).await?;
    // A retry is answered as the first time, whatever has changed since: the clock, the limits, the room.
    if let Some(stored) = terms.answered {
        let spec = spec.check(&caller.tenant.policy, Timestamp::MIN_UTC)?;
        return compare(app, caller, spec, stored, messages).await;
    }
    let spec = admit(app, caller, spec, &terms.quota);
    let spec = spec.inspect_err(|error| count_refusal(&app.metrics, error))?;
    let spec = version::of_file(app, caller, spec).await?;
    let limits = (terms.quota.file_size_max_bytes, spec.types.clone());
    let sink = store_sink(app, caller, &spec).await?;
    let content = Content::new(&spec, limits, &app.hashing);
    let received = receive(app, caller, content, sink, Persisted::default(), messages).await?;
    store(app, caller, spec, received).await
}

/// The quota of a moment ago, for a file that is known to be small.
async fn recent_quota(app: &App, caller: &Caller, spec: &UploadSpec) -> Option<Arc<Quota>> {
    // A version asks for its file, so it can ask for the rest as well.
    spec.file_id.is_empty().then_some(())?;
    let part_size_bytes = i64::try_from(app.limits.uploads.part_size_bytes).unwrap_or(i64::MAX);
    spec.size_bytes.filter(|size| *size <= part_size_bytes)?;
    app.recent_quotas.get(caller.tenant_id()).await
}

pub(in crate::app) async fn read_terms(
    app: &App,
    caller: &Caller,
    request_id: Option<RequestId>,
) -> Result<UploadTerms, Error> {
    let terms = app.db.upload_terms(caller.tenant_id(), request_id, idempotency::hours(app)).await?;
    app.recent_quotas.remember(&terms.quota).await;
    Ok(terms)
}

/// Whether an upload may begin.
pub(in crate::app) fn admit(
    app: &App,
    caller: &Caller,
    spec: UploadSpec,
    quota: &Quota,
) -> Result<CheckedSpec, Error> {
    let spec = spec.check(&caller.tenant.policy, app.clock.now())?;
    check_scan(app, caller)?;
    check_room(quota, &spec)?;
    Ok(spec)
}

/// Uploads a small file without asking the database first. The commit asks: for an answer that was given before, and for
/// room. Only a file that is too large for its kind is refused here, if it was not taken before.
async fn upload_at_once<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: CheckedSpec,
    quota: &Quota,
    messages: S,
) -> Result<Uploaded, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let sink = store_sink(app, caller, &spec).await?;
    let limits = (FileSizeLimits::NONE, TakenTypes::any());
    let content = Content::new(&spec, limits, &app.hashing);
    let received = receive(app, caller, content, sink, Persisted::default(), messages).await?;
    let content = &received.content;
    let kind = Some(content.kind);
    if check_size(content.size_bytes, kind, &quota.file_size_max_bytes).is_err() {
        let terms = read_terms(app, caller, spec.request_id).await?;
        if let Some(stored) = terms.answered {
            let payload = spec.fingerprint(&caller.actor.id, content.sha256);
            return replay_upload(stored, payload).map(uploaded);
        }
        let fits = check_size(content.size_bytes, kind, &terms.quota.file_size_max_bytes);
        fits.inspect_err(|error| count_refusal(&app.metrics, error))?;
    }
    store(app, caller, spec, received).await
}

/// Answers a retry. Without a digest in its spec the bytes are read to the end and compared, and stored nowhere.
async fn compare<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: CheckedSpec,
    stored: StoredAnswer,
    messages: S,
) -> Result<Uploaded, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let sha256 = match spec.sha256 {
        Some(sha256) => sha256,
        None => {
            let limits = (FileSizeLimits::NONE, TakenTypes::any());
            let content = Content::new(&spec, limits, &app.hashing);
            let received =
                receive(app, caller, content, Sink::Compare, Persisted::default(), messages).await?;
            received.content.sha256
        }
    };
    let payload = spec.fingerprint(&caller.actor.id, sha256);
    replay_upload(stored, payload).map(uploaded)
}

/// A policy that demands a scan is not answered by a server without a scanner, unless its operator said so.
fn check_scan(app: &App, caller: &Caller) -> Result<(), Error> {
    match caller.tenant.policy.scan {
        ScanRule::Required if !app.limits.scanning.accept_unscanned => Err(Error::ScanRequired),
        ScanRule::Required | ScanRule::WhereConfigured | ScanRule::NotRequired => Ok(()),
    }
}

/// A file that cannot fit is refused before its bytes travel; whether one that could does fit is decided by the charge
/// alone. A replay stores nothing, so it needs no room.
fn check_room(quota: &Quota, spec: &CheckedSpec) -> Result<(), Error> {
    let size = spec.size_bytes.unwrap_or_default();
    check_size(size, None, &quota.file_size_max_bytes)?;
    let needed = i64::try_from(size).unwrap_or(i64::MAX);
    let is_at_count =
        quota.file_count_max > 0 && quota.file_count + quota.reserved_file_count >= quota.file_count_max;
    // A version is charged its bytes and is no further file.
    if needed > quota.available_bytes() || (is_at_count && spec.file.is_none()) {
        return Err(Error::over_quota(quota, needed));
    }
    Ok(())
}

/// Bytes go to the store. A file that is known to need several parts reserves its room before its first byte.
async fn store_sink(app: &Arc<App>, caller: &Caller, spec: &CheckedSpec) -> Result<Sink, Error> {
    let target = target(app, caller, spec)?;
    let is_large = spec.size_bytes.filter(|size| *size > app.limits.uploads.part_size_bytes as u64);
    let open = match is_large {
        Some(size) => Some(OpenUpload::open(app, caller, target.clone(), size).await?),
        None => None,
    };
    Ok(Sink::Store { target: Box::new(target), open })
}

/// Makes the bytes durable, then the file visible. Both in a task of their own: a client that hangs up now does not undo
/// what it has finished.
pub(super) async fn store(
    app: &Arc<App>,
    caller: &Caller,
    spec: CheckedSpec,
    received: Received,
) -> Result<Uploaded, Error> {
    let (app, caller) = (Arc::clone(app), caller.clone());
    let tasks = app.tasks.clone();
    let span = tracing::Span::current();
    let work = async move { store_and_commit(&app, &caller, spec, received).await };
    tasks.spawn(tracing::Instrument::instrument(work, span)).await.map_err(Error::internal)?
}

async fn store_and_commit(
    app: &Arc<App>,
    caller: &Caller,
    spec: CheckedSpec,
    received: Received,
) -> Result<Uploaded, Error> {
    let Received { content, place } = received;
    let store_time = app.clock.now();
    let (target, open, crc64nvme) = match place {
        Place::Memory(target, part) => {
            let (body, room) = part.into_body();
            let put = target.store.put(&target.key, body.clone(), &target.options).await;
            let crc64nvme = body.crc64nvme();
            drop((body, room));
            if let Err(error) = put {
                // A failed write may have happened all the same.
                remove_object(&target).await;
                return Err(error.into());
            }
            (*target, None, crc64nvme)
        }
        Place::Parts(open, receipts, crc64nvme) => {
            open.complete(&receipts).await?;
            (open.target().clone(), Some(open), crc64nvme)
        }
        Place::Compared => return Err(Error::internal("a compared upload has nothing to store")),
    };
    let lease = open.as_ref().map(|open| open.lease());
    let blob = target.blob(content.size_bytes, content.sha256, crc64nvme);
    let finished = finished(app, caller, spec, &content, blob, (lease, store_time));
    // A batch that died without a word may have committed.
    let committed = app.commits.submit(caller.tenant_id(), finished).await;
    let committed = committed.unwrap_or_else(|lost| Err(Error::OutcomeUnknown(lost.into())));
    settle(&target, open, &committed).await;
    committed.map(|committed| uploaded(committed.answer))
}

/// What became a file keeps its object; what did not gives it back. What is not known keeps everything: an open upload is
/// decided when its lease runs out, and an object without a row is swept after the grace period.
async fn settle(target: &Target, open: Option<Box<OpenUpload>>, committed: &Result<Committed, Error>) {
    match (committed, open) {
        (Ok(Committed { is_replay: false, .. }) | Err(Error::OutcomeUnknown(_)), open) => {
            if let Some(open) = open {
                open.settled();
            }
        }
        // The file that it is a version of is not there any more, or not the caller's to change; or its category is another.
        // Or its etag is another, and never becomes the expected one again.
        (
            Err(Error::NotFound(_) | Error::NotAllowed(_) | Error::Invalid(_) | Error::EtagMismatch),
            Some(open),
        ) => open.hopeless(),
        // Dropping it removes the object and releases the reservation; one that can be resumed stays as it is.
        (Ok(_) | Err(_), Some(open)) => drop(open),
        (Ok(_) | Err(_), None) => remove_object(target).await,
    }
}

pub(super) fn finished(
    app: &App,
    caller: &Caller,
    spec: CheckedSpec,
    content: &Measured,
    blob: Blob,
    (lease, store_time): (Option<UploadLease>, Timestamp),
) -> FinishedUpload {
    const FIRST_VERSION: i32 = 1;
    let id = spec.file.unwrap_or_else(|| FileId::from_uuid(app.ids.uuid()));
    let actor = &caller.actor.id;
    let now = app.clock.now();
    let payload = spec.fingerprint(actor, content.sha256);
    let imported = spec.imported;
    let owner_id = imported.as_ref().map_or(actor, |imported| &imported.owner_id).clone();
    let mut audit = audit::entry(caller, AuditAction::FileUpload, Some((id, FIRST_VERSION)));
    if let Some(Imported { source, legacy_id, .. }) = &imported {
        audit.details = serde_json::json!({ "import_source": source, "legacy_id": legacy_id });
    }
    FinishedUpload {
        is_version: spec.file.is_some(),
        may_write_all: writes_all(caller),
        if_etag: spec.if_etag,
        change_description: spec.change_description,
        retention_days: spec.retention_days.and_then(|days| i32::try_from(days).ok()),
        warnings: of_content(&spec.declared_mime_type, content),
        request: spec.request_id.map(|request_id| (request_id, payload)),
        readers: spec.readers,
        blob,
        store_time,
        lease,
        verification: None,
        audit,
        imported,
        file: File {
            id,
            tenant_id: caller.tenant_id(),
            owner_id,
            created_by: actor.clone(),
            updated_by: actor.clone(),
            original_name: spec.name.clone(),
            name: spec.name,
            category: spec.category,
            title: spec.title,
            description: spec.description,
            metadata: spec.metadata,
            tags: spec.tags,
            attachments: spec.attachments,
            visibility: spec.visibility,
            version: FIRST_VERSION,
            content_state: ContentState::Available,
            scan_status: ScanStatus::NotScanned,
            mime_type: content.mime_type.mime_type.clone(),
            declared_mime_type: spec.declared_mime_type,
            media_kind: content.kind,
            size_bytes: content.size_bytes,
            sha256: content.sha256,
            revision: 1,
            create_time: now,
            update_time: now,
            trash: None,
            archive_time: None,
            expire_time: spec.expire_time,
            deletion_time: None,
            retain_until_time: spec.retain_until_time,
            hold: None,
            access: Some(FileAccess::default()),
            state_reason: None,
        },
    }
}

/// What a committed upload is answered.
pub(super) fn uploaded(answer: Answer) -> Uploaded {
    let Answer { file, mut warnings, quota, event } = answer;
    warnings.extend(of_quota(&quota));
    Uploaded { file, quota, warnings, event }
}
