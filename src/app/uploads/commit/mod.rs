//! Commits stored content as a visible file, and cleans up after the commit.
//!
//! `batch` writes the rows of the finished uploads of one tenant in one transaction, and `response` holds the
//! response of an upload and its replay. This is the last stage of an upload.

pub(in crate::app) mod batch;
mod response;

use self::response::content_warnings;
pub use self::response::{CommittedUpload, Warning, WarningCode};
pub(super) use self::response::{commit_request_id, replay_committed_upload, replay_upload};
use super::{
    admit::Target,
    open::OpenUpload,
    receive::content::ContentSummary,
    store::{StoredContent, delete_object},
};
use crate::{
    admission::CallerKey,
    app::{App, Error, access::can_write_all, audit},
    db::{
        audit_entries::{AuditAction, AuditEntry},
        blobs::Blob,
        commit::FinishedDestination,
        idempotency_keys::RequestKey,
        uploads::UploadLease,
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        digest::Digest,
        file::{ContentState, ScanStatus, VersionContent},
        ids::{FileId, JobId, TenantId},
        import_origin::ImportOrigin,
        upload_destination::Destination,
        upload_spec::ResolvedSpec,
    },
};

/// An upload that waits for its commit.
#[derive(Debug, Clone)]
pub(in crate::app) struct PendingCommit {
    pub(super) tenant: TenantId,
    pub(super) destination: FinishedDestination,
    pub(super) content: VersionContent,
    /// The id of the uploader.
    pub(super) created_by: String,
    pub(super) change_description: String,
    pub(super) warnings: Vec<Warning>,
    pub(super) blob: Blob,
    /// When the last bytes were received, or a direct upload was completed. A small file is sent to the store
    /// after that.
    pub(super) store_time: Timestamp,
    /// The lease of the open upload, if any. Its reservation becomes usage. A small file has none.
    pub(super) lease: Option<UploadLease>,
    /// The request id and the fingerprint of its payload.
    pub(super) request: Option<RequestKey>,
    /// The verification job of a direct upload. Other uploads are verified while their bytes are received.
    pub(super) verification: Option<VerificationJob>,
    pub(super) audit: AuditEntry,
}

/// A job that reads and verifies the content before anyone else may read it.
#[derive(Debug, Clone)]
pub(super) struct VerificationJob {
    pub(super) id: JobId,
    /// The declared digest, if any.
    pub(super) sha256: Option<Digest>,
    /// The media type detected from the first bytes.
    pub(super) sniffed: Option<String>,
}

/// The outcome of a successful commit.
#[derive(Debug, Clone)]
pub(in crate::app) struct CommitReceipt {
    pub(super) upload: CommittedUpload,
    /// Whether an earlier attempt with the same request id was committed first. The bytes of this attempt are
    /// then surplus.
    pub(super) is_replay: bool,
}

/// Makes stored content visible as a file, together with other uploads of its tenant: `app/group.rs` collects
/// the batch, and `batch` commits it.
pub(super) async fn commit_content(
    app: &App,
    caller: &Caller,
    spec: ResolvedSpec,
    stored: StoredContent,
) -> Result<CommittedUpload, Error> {
    let StoredContent { content, hashes, target, open, store_time } = stored;
    let lease = open.as_ref().map(|open| open.lease());
    let blob = target.to_blob(content.size_bytes, Some(hashes));
    let finished = new_pending_commit(app, caller, spec, &content, blob, lease, store_time);
    let has_request_id = finished.request.is_some();
    // A batch that was lost without an outcome may have committed.
    let committed =
        app.commits.submit(caller.tenant_id(), CallerKey::of_actor(&caller.actor), finished).await;
    let committed =
        committed.unwrap_or_else(|lost| Err(Error::OutcomeUnknown { has_request_id, source: lost.into() }));
    clean_up_after_commit(&target, open, &committed).await;
    committed.map(|receipt| receipt.upload)
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

/// Returns whether an upload whose commit failed can never become a file: its target file does not exist, the
/// caller may no longer change it, or its category or etag has changed. An etag never recurs.
pub(super) fn is_final_refusal(error: &Error) -> bool {
    matches!(error, Error::NotFound(_) | Error::NotAllowed(_) | Error::Invalid(_) | Error::EtagMismatch)
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
        (Err(error), Some(open)) if is_final_refusal(error) => open.abandon(),
        // Dropping the upload deletes the object and releases the reservation; a resumable upload stays open.
        (Ok(_) | Err(_), Some(open)) => drop(open),
        (Ok(_) | Err(_), None) => delete_object(target).await,
    }
}
