//! Stores the received bytes as one complete object, commits it as a visible file, and cleans up after the commit.
//!
//! A small file is written here; of a larger one, whose parts were written while they were received, the
//! multipart upload is completed. `batch` writes the rows of the finished uploads of one tenant in one
//! transaction, and `response` holds the response of an upload and its replay. This is the last stage of an
//! upload.

pub(in crate::app) mod batch;
mod response;

use std::sync::Arc;

use self::response::content_warnings;
pub use self::response::{CommittedUpload, Warning, WarningCode};
pub(super) use self::response::{check_replay, commit_request_id, replay_committed_upload, replay_upload};
use super::{
    admit::Target,
    error::map_multipart_error,
    open::OpenUpload,
    receive::{ReceivedBytes, ReceivedStream, content::ContentSummary},
};
use crate::{
    admission::CallerKey,
    app::{
        App, Error,
        access::can_write_all,
        audit,
        owner::{
            StoreRefusal,
            delete::{Deletion, delete_from_store},
        },
        uploads::UploadError,
    },
    db::{
        DbError, TenantTx, Viewer,
        audit_entries::{AuditAction, AuditEntry},
        blobs::Blob,
        finished_upload::FinishedDestination,
        idempotency_keys::RequestKey,
        upload_parts,
        uploads::{self, UploadLease},
    },
    domain::{
        block_checksums::BlockChecksums,
        caller::Caller,
        checksum::Crc64,
        clock::Timestamp,
        digest::{Digest, ObjectHashes},
        file::{ContentState, ScanStatus, VersionContent},
        ids::{FileId, JobId, TenantId},
        import_origin::ImportOrigin,
        upload_destination::Destination,
        upload_spec::ResolvedSpec,
    },
    storage::{ObjectStorageExt, PartReceipt, Payload, StorageErrorKind},
};

/// An upload that waits for its commit.
#[derive(Debug, Clone)]
pub(in crate::app) struct PendingCommit {
    pub(super) tenant: TenantId,
    pub(super) destination: FinishedDestination,
    pub(super) content: VersionContent,
    /// The id of the uploader.
    pub(super) created_by: String,
    /// The permissions of the uploader, which the commit checks again.
    pub(super) uploader: Viewer,
    pub(super) change_description: String,
    pub(super) warnings: Vec<Warning>,
    pub(super) blob: Blob,
    /// The checksums of its blocks, if it has several and its bytes are verified.
    pub(super) block_checksums: Option<BlockChecksums>,
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

/// Stores the received bytes and makes them visible as a file, together with other uploads of its tenant:
/// `app/group.rs` collects the batch, and `batch` commits it.
pub(super) async fn store_and_commit(
    app: &Arc<App>,
    caller: &Caller,
    spec: ResolvedSpec,
    received: ReceivedStream,
) -> Result<CommittedUpload, Error> {
    let StoredContent { content, hashes, block_checksums, target, open, store_time } =
        store_content(app, received).await?;
    let lease = open.as_ref().map(|open| open.lease());
    let blob = target.to_blob(content.size_bytes, Some(hashes));
    let finished = PendingCommit {
        block_checksums,
        ..new_pending_commit(app, caller, spec, &content, blob, lease, store_time)
    };
    let (has_request_id, file) = (finished.request.is_some(), finished.destination.file_id());
    // A batch that was lost without an outcome may have committed.
    let committed =
        app.commits.submit(caller.tenant_id(), CallerKey::of_actor(&caller.actor), finished).await;
    let committed =
        committed.unwrap_or_else(|lost| Err(Error::OutcomeUnknown { has_request_id, source: lost.into() }));
    clean_up_after_commit(&target, open, &committed).await;
    committed_upload(app, caller, file, committed).await
}

/// Returns the response of a commit. Records a denied version, and checks a replayed response.
pub(super) async fn committed_upload(
    app: &App,
    caller: &Caller,
    file: FileId,
    committed: Result<CommitReceipt, Error>,
) -> Result<CommittedUpload, Error> {
    match committed {
        Ok(CommitReceipt { upload, is_replay: true }) => check_replay(app, caller, upload).await,
        Ok(CommitReceipt { upload, is_replay: false }) => Ok(upload),
        Err(error @ Error::NotAllowed(_)) => {
            Err(audit::record_denial(app, caller, AuditAction::FileUpload, Some(file), error).await)
        }
        Err(error) => Err(error),
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
            FinishedDestination::NewFile { id: FileId::of_first_blob(blob.id), owner_id, record }
        }
        Destination::NewVersion(version) => FinishedDestination::NewVersion {
            version,
            category: rules.category,
            may_write_all: can_write_all(caller),
            version_count_max: app.limits.uploads.versions_per_file_max,
        },
    };
    PendingCommit {
        tenant: caller.tenant_id(),
        destination,
        created_by: actor.clone(),
        uploader: Viewer::from_caller(caller),
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
        block_checksums: None,
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

/// Content that is complete and durable in its store, and that no row refers to yet.
struct StoredContent {
    content: ContentSummary,
    hashes: ObjectHashes,
    block_checksums: Option<BlockChecksums>,
    target: Target,
    /// The open upload, if any. A small file has none.
    open: Option<Box<OpenUpload>>,
    /// When the last bytes were received. A small file is sent to the store after that.
    store_time: Timestamp,
}

/// Stores the received bytes. If this fails, no object of a small file is left behind.
async fn store_content(app: &Arc<App>, received: ReceivedStream) -> Result<StoredContent, Error> {
    let ReceivedStream { content, sha256, block_checksums, bytes } = received;
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
            complete_multipart(app, &open, &receipts, crc64nvme).await?;
            (open.target().clone(), Some(open), crc64nvme)
        }
        ReceivedBytes::Compared => return Err(Error::internal("compared upload has no bytes to store")),
    };
    let hashes = ObjectHashes { sha256, crc64nvme };
    Ok(StoredContent { content, hashes, block_checksums, target, open, store_time })
}

/// Completes the multipart upload of an open upload. Safe to repeat if the outcome of an earlier attempt is
/// unknown.
///
/// A part that differs from the recorded one was rewritten by a fenced writer. Its original bytes are lost, so
/// this deletes the rows of all parts, and the client must send them again. It must do so as well if the store lost the
/// parts, or if it reports another checksum of the whole. Any other rejection changes nothing.
async fn complete_multipart(
    app: &Arc<App>,
    open: &OpenUpload,
    receipts: &[PartReceipt],
    crc64nvme: Crc64,
) -> Result<(), Error> {
    let multipart = open.multipart();
    let Target { store, key, options, .. } = &multipart.target;
    if receipts.is_empty() {
        // Stores cannot complete a multipart upload without parts. No other writer uses this key.
        if let Err(error) = store.put(key, Payload::default(), options).await {
            let found = match error.kind {
                StorageErrorKind::AlreadyExists => store.find_object(key).await?,
                _ => None,
            };
            if found.is_none_or(|found| found.size_bytes != 0) {
                return Err(map_multipart_error(error));
            }
        }
        return match delete_from_store(store.as_ref(), Deletion::Multipart(key, &multipart.id)).await {
            // The sweeper aborts it later.
            Err(error) if StoreRefusal::is_temporary(&error) => Ok(()),
            aborted => Ok(aborted?),
        };
    }
    match store.complete_multipart(key, &multipart.id, receipts, Some(crc64nvme)).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind == StorageErrorKind::Damaged => {
            tracing::error!(upload = %open.lease().id, %error, "the store assembled other bytes than it received");
            match open.is_resumable() {
                true => Err(multipart.begin_again(app).await?),
                false => Err(UploadError::PartsLost.into()),
            }
        }
        Err(error) if open.is_resumable() && error.kind == StorageErrorKind::PartsDiffer => {
            tracing::warn!(upload = %open.lease().id, %error, "found parts in the store that differ from the recorded ones");
            let mut tx = app.db.tenant_tx(multipart.tenant, &Viewer::system()).await?;
            let deleted = delete_parts(&mut tx, open.lease()).await;
            match tx.finish(deleted).await? {
                // Another writer has taken over the upload, and the parts belong to it.
                0 => Err(UploadError::Fenced.into()),
                _ => Err(UploadError::Paused { persisted_size_bytes: 0 }.into()),
            }
        }
        Err(error) => Err(multipart.convert_error(app, error).await),
    }
}

/// Deletes all parts of an upload, whose new parts then renew the lease again. Returns the number of deleted parts.
async fn delete_parts(tx: &mut TenantTx, lease: UploadLease) -> Result<usize, DbError> {
    // The upload is locked before its parts, as when a part is recorded.
    uploads::restart_renewals(tx, lease).await?;
    upload_parts::delete_from(tx, lease, 1).await
}

/// Deletes an object that no committed row refers to. A failure is logged: the sweeper deletes the object
/// later.
pub(super) async fn delete_object(target: &Target) {
    let key = &target.key;
    if let Err(error) = delete_from_store(target.store.as_ref(), Deletion::Object(key)).await {
        tracing::warn!(%key, %error, "failed to delete object");
    }
}
