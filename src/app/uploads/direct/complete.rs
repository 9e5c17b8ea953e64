//! Completes a direct upload: assembles the object in the store and commits the file at once. No caller can
//! read the file until a job has verified it; see `verify`.
//!
//! The content type is detected from the first bytes of the object, to which no URL can write any more. A
//! type that the category does not allow, or a file too large for its media kind, is rejected as in every
//! upload, and usage is counted under the detected kind.

use std::sync::Arc;

use super::{
    completion::{
        check_completion, check_part_numbers, check_parts, check_same_completion, check_same_parts,
        completion_record,
    },
    new_direct_target, part_count,
};
use crate::{
    admission::CallerKey,
    app::{
        App, Error, Resource,
        uploads::{
            UploadError,
            admit::{Target, check_retention_again, check_target_again},
            commit::{
                CommitReceipt, CommittedUpload, PendingCommit, VerificationJob, commit_request_id,
                committed_upload, delete_object, is_final_refusal, new_pending_commit,
                replay_committed_upload,
            },
            error::{check_size, map_multipart_error},
            open::{
                abandon::{AbandonedUpload, abandon_if_refused, abandon_upload},
                lease_seconds,
                multipart::OpenMultipart,
            },
            receive::{
                content::ContentSummary,
                message::{CompletedPart, Completion},
            },
        },
    },
    db::{
        TenantTx, Viewer, blobs, quotas,
        resumable_uploads::{self, StoredUpload, UploadedBytes},
        upload_completions::{self, UploadCompletion},
        uploads, versions,
    },
    domain::{
        caller::Caller,
        file::{ContentState, project_state},
        ids::{JobId, UploadId},
        media_type::{MediaKind, resolve_type},
        policy::FileSizeLimits,
        upload::UploadState,
        upload_spec::ResolvedSpec,
        violations::Violations,
    },
    media::sniff::{SNIFF_BYTES_MAX, sniff_media_type},
    storage::{MultipartId, ObjectStorageExt, PartLayout, PartReceipt, StorageErrorKind},
};

/// Completes an open direct upload of this caller, or returns the same response again if it was committed
/// before.
///
/// # Errors
/// Returns the errors of `complete_upload`.
pub(in crate::app::uploads) async fn complete_direct_upload(
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    completion: Completion,
) -> Result<CommittedUpload, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let owned = take_over_in_tx(app, &mut tx, caller, id).await;
    let owned = abandon_if_refused(app, caller, id, tx.finish(owned).await).await;
    let (stored, limits) = match owned? {
        TakenUpload::Open(stored, limits) => (*stored, limits),
        TakenUpload::Committed(stored) => {
            let committed = replay_committed_upload(app, caller, id).await?;
            check_repeated_completion(app, caller, &completion, &stored, &committed).await?;
            return Ok(committed);
        }
    };
    let size_bytes =
        stored.spec.checked.size_bytes.ok_or_else(|| Error::internal("direct upload without a size"))?;
    let sha256 = check_completion(&completion, &stored.spec.checked, size_bytes)?;
    let target = Target::from_stored(app, caller, &stored)?;
    let record = completion_record(&completion.parts, sha256);
    let checked = async {
        assemble_object(app, caller, &stored, &target, size_bytes, &completion.parts, record).await?;
        check_content(&stored.spec, &target, size_bytes, &limits).await
    };
    let (committed, is_abandoned, file) = match checked.await {
        Ok((content, sniffed)) => {
            let verification =
                Some(VerificationJob { id: JobId::from_uuid(app.ids.uuid()), sha256, sniffed });
            let finished = PendingCommit {
                verification,
                ..new_processing_commit(app, caller, &stored, &target, content)
            };
            let file = finished.destination.file_id();
            let committed =
                app.commits.submit(caller.tenant_id(), CallerKey::of_actor(&caller.actor), finished).await;
            // The commit has a request id derived from the upload, so a retry is safe.
            let committed = committed.unwrap_or_else(|lost| {
                Err(Error::OutcomeUnknown { has_request_id: true, source: lost.into() })
            });
            let is_abandoned = committed.as_ref().is_err_and(is_final_refusal);
            (committed, is_abandoned, Some(file))
        }
        // The client may send missing parts or replace parts.
        Err(error) => {
            let is_abandoned = has_excess_parts(&error, &stored.bytes)
                || matches!(error, Error::Upload(UploadError::PartsLost));
            (Err(error), is_abandoned, None)
        }
    };
    match is_abandoned {
        true => abandon_direct_upload(app, caller, &stored, &target).await,
        false => clean_up_after_commit(&stored, target, &committed).await,
    }
    match file {
        Some(file) => committed_upload(app, caller, file, committed).await,
        None => committed.map(|receipt| receipt.upload),
    }
}

/// Returns whether the parts of an upload have more bytes than were reserved for them, or were assembled to
/// another size. The URLs sign the length of each part, so this happens only in a store that ignores it. One
/// part cannot be deleted, and nothing else accounts for its bytes, so such an upload is abandoned.
fn has_excess_parts(error: &Error, bytes: &UploadedBytes) -> bool {
    matches!(bytes, UploadedBytes::Multipart(_))
        && match error {
            Error::Upload(UploadError::PartSizeMismatch { declared, received, .. }) => received > declared,
            Error::Upload(UploadError::SizeMismatch { .. }) => true,
            _ => false,
        }
}

/// Abandons an upload that can never become a file.
async fn abandon_direct_upload(app: &App, caller: &Caller, stored: &StoredUpload, target: &Target) {
    let abandoned = AbandonedUpload::from_stored(caller.tenant_id(), stored);
    if let Err(error) = abandon_upload(app, target.store.as_ref(), abandoned).await {
        tracing::warn!(upload = %stored.lease.id, %error, "failed to abandon direct upload");
    }
}

/// Deletes the objects that are no longer needed: the staging object after a commit, or the copy after a
/// failure. The next attempt makes its own copy.
async fn clean_up_after_commit(
    stored: &StoredUpload,
    target: Target,
    committed: &Result<CommitReceipt, Error>,
) {
    match (committed, &stored.bytes) {
        (Ok(committed), UploadedBytes::Staged(staging_key)) => {
            if committed.is_replay {
                delete_object(&target).await;
            }
            // A URL that has not expired can write to this key again. The sweeper deletes such an object.
            delete_object(&Target { key: staging_key.clone(), ..target }).await;
        }
        // The upload may have become a file.
        (Err(Error::OutcomeUnknown { .. }), _) => {}
        (Err(error), UploadedBytes::Staged(staging_key)) => {
            delete_object(&target).await;
            // The URL signs the length. A store that ignores it may hold more bytes than were reserved.
            if matches!(error, Error::Upload(UploadError::SizeMismatch { .. })) {
                delete_object(&Target { key: staging_key.clone(), ..target }).await;
            }
        }
        (Ok(_) | Err(_), UploadedBytes::Multipart(_)) => {}
    }
}

/// The state of an upload that was to be taken over.
enum TakenUpload {
    /// It is open, and this process holds it.
    Open(Box<StoredUpload>, FileSizeLimits),
    /// It was committed.
    Committed(Box<StoredUpload>),
}

/// Takes over the upload, unless it was committed. A single-part upload gets a new key, because a
/// fenced writer may still copy to the previous one.
async fn take_over_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: UploadId,
) -> Result<TakenUpload, Error> {
    resumable_uploads::take_over(tx, id).await?;
    let stored = resumable_uploads::get(tx, id).await?;
    let stored = stored.filter(|stored| stored.upload.created_by == caller.actor.id);
    let mut stored = stored.ok_or(Error::NotFound(Resource::Upload))?;
    if stored.upload.state == UploadState::Committed {
        return Ok(TakenUpload::Committed(Box::new(stored)));
    }
    check_target_again(tx, caller, &stored.spec.checked).await?;
    check_retention_again(caller, &stored.spec.checked, app.clock.now())?;
    if matches!(stored.bytes, UploadedBytes::Staged(_)) {
        let fresh = new_direct_target(app, caller, &stored.spec)?;
        if !resumable_uploads::retarget(tx, stored.lease, fresh.blob_id, &fresh.key).await? {
            return Err(UploadError::Fenced.into());
        }
        (stored.blob_id, stored.key) = (fresh.blob_id, fresh.key);
    }
    let limits = quotas::get(tx).await?.file_size_max_bytes;
    Ok(TakenUpload::Open(Box::new(stored), limits))
}

/// Checks that a committed upload is completed again with the same content. A digest is rejected while there is no
/// other digest to compare it with, because success would mean that the stored content has this digest.
///
/// # Errors
/// Returns the errors of `check_same_completion`, and `DigestUnknown` or `NotFound` if the digest cannot be compared.
async fn check_repeated_completion(
    app: &App,
    caller: &Caller,
    completion: &Completion,
    stored: &StoredUpload,
    committed: &CommittedUpload,
) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let first = read_first_completion(&mut tx, stored, committed).await;
    let (state, first) = tx.finish(first).await?;
    check_same_completion(completion, stored, &first)?;
    match (completion.sha256.is_some() && first.sha256.is_none(), state) {
        (false, _) => Ok(()),
        (true, Some(state)) => Err(UploadError::DigestUnknown(project_state(state, false, false)).into()),
        // The version was deleted, and its digest with it.
        (true, None) => Err(Error::NotFound(Resource::Version)),
    }
}

/// Returns the state of the version of a committed upload, and what the client named when it completed the upload. The
/// digest is the verified one, if there is one.
async fn read_first_completion(
    tx: &mut TenantTx,
    stored: &StoredUpload,
    committed: &CommittedUpload,
) -> Result<(Option<ContentState>, UploadCompletion), Error> {
    // The state first: a version that is verified in between has its digest then.
    let version = versions::get(tx, committed.file.id, committed.file.version).await?;
    let verified = blobs::get_sha256(tx, stored.blob_id).await?;
    // The previous version recorded no completions.
    let named = upload_completions::get(tx, stored.lease.id).await?.unwrap_or_default();
    let sha256 = verified.or(named.sha256).or(stored.spec.checked.sha256);
    Ok((version.map(|version| version.content_state), UploadCompletion { sha256, ..named }))
}

/// Renews the lease if more complete parts are in the store than at an earlier completion. An attempt that finds
/// no new part does not keep the upload open.
async fn renew_lease_for_parts(
    app: &App,
    caller: &Caller,
    stored: &StoredUpload,
    size_bytes: u64,
    receipts: &[PartReceipt],
) -> Result<(), Error> {
    let part_size_bytes = stored.upload.part_size_bytes;
    let is_complete = |receipt: &&PartReceipt| {
        let offset = u64::from(receipt.number.saturating_sub(1)) * part_size_bytes;
        offset < size_bytes && receipt.size_bytes == part_size_bytes.min(size_bytes - offset)
    };
    let part_count = i32::try_from(receipts.iter().filter(is_complete).count()).unwrap_or(i32::MAX);
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let renewed = uploads::renew_lease_for_parts(&mut tx, stored.lease, part_count, lease_seconds(app)).await;
    Ok(tx.finish(renewed).await?)
}

/// Records what the client named, before the object is assembled.
async fn record_completion(
    app: &App,
    caller: &Caller,
    stored: &StoredUpload,
    record: &UploadCompletion,
) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let recorded = upload_completions::record(&mut tx, stored.lease, record).await;
    if tx.finish(recorded).await? { Ok(()) } else { Err(UploadError::Fenced.into()) }
}

/// Compares the parts with those from which an earlier attempt assembled the object, and records the completion.
async fn record_completion_again(
    app: &App,
    caller: &Caller,
    stored: &StoredUpload,
    parts: &[CompletedPart],
    record: UploadCompletion,
) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let first = upload_completions::get(&mut tx, stored.lease.id).await;
    let first = tx.finish(first).await?.unwrap_or_default();
    check_same_parts(parts, &first)?;
    let etags = if first.etags.is_empty() { record.etags } else { first.etags };
    record_completion(app, caller, stored, &UploadCompletion { etags, ..record }).await
}

/// Assembles the object that no URL can write to, and records the completion.
async fn assemble_object(
    app: &Arc<App>,
    caller: &Caller,
    stored: &StoredUpload,
    target: &Target,
    size_bytes: u64,
    parts: &[CompletedPart],
    record: UploadCompletion,
) -> Result<(), Error> {
    let Target { store, key, options, .. } = target;
    check_part_numbers(parts, part_count(&stored.upload, size_bytes))?;
    let assembled_bytes = match &stored.bytes {
        UploadedBytes::Staged(staging_key) => {
            let Some(staged) = store.find_object(staging_key).await? else {
                let problem = "has no bytes in the store; PUT them to its URL, then complete again";
                return Err(Violations::one("upload_id", problem).into());
            };
            check_object_size(size_bytes, staged.size_bytes)?;
            record_completion(app, caller, stored, &record).await?;
            store.copy(staging_key, key, options).await?.size_bytes
        }
        UploadedBytes::Multipart(id) => {
            let multipart = OpenMultipart {
                tenant: caller.tenant_id(),
                lease: stored.lease,
                target: target.clone(),
                id: MultipartId::new(id.as_str()),
                layout: PartLayout::equal(stored.upload.part_size_bytes),
                // The client has URLs of this multipart upload only.
                is_resumable: false,
            };
            match store.list_parts(key, &multipart.id).await {
                Ok(receipts) => {
                    renew_lease_for_parts(app, caller, stored, size_bytes, &receipts).await?;
                    check_parts(stored, size_bytes, &receipts, parts)?;
                    record_completion(app, caller, stored, &record).await?;
                    match store.complete_multipart(key, &multipart.id, &receipts, None).await {
                        Ok(_) => {}
                        Err(error) if error.kind == StorageErrorKind::PartsDiffer => {
                            return Err(parts_changed_error());
                        }
                        Err(error) => return Err(multipart.convert_error(app, error).await),
                    }
                }
                // Either an earlier attempt completed the multipart upload, but its commit failed, or the store
                // aborted it. The object shows which.
                Err(error) if error.kind == StorageErrorKind::NotFound => {
                    record_completion_again(app, caller, stored, parts, record).await?;
                }
                Err(error) => return Err(map_multipart_error(error)),
            }
            match store.head(key).await {
                Ok(info) => info.size_bytes,
                Err(error) => return Err(multipart.convert_error(app, error).await),
            }
        }
    };
    check_object_size(size_bytes, assembled_bytes)
}

/// The URLs stay valid until the multipart upload is completed.
fn parts_changed_error() -> Error {
    let problem = "were replaced during completion; complete again with their current etags";
    Violations::one("parts", problem).into()
}

fn check_object_size(declared: u64, received: u64) -> Result<(), Error> {
    if declared == received { Ok(()) } else { Err(UploadError::SizeMismatch { declared, received }.into()) }
}

/// Detects the content type from the first bytes and checks that the category allows it.
async fn check_content(
    spec: &ResolvedSpec,
    target: &Target,
    size_bytes: u64,
    limits: &FileSizeLimits,
) -> Result<(ContentSummary, Option<String>), Error> {
    let head = target.store.get_bytes(&target.key, 0..size_bytes.min(SNIFF_BYTES_MAX as u64)).await?;
    let sniffed = sniff_media_type(&head);
    let mime_type = resolve_type(&spec.checked.declared_mime_type, sniffed.as_deref(), &spec.rules.file_name);
    spec.rules.check_type(&mime_type.mime_type, sniffed.as_deref())?;
    let kind = MediaKind::from_mime_type(&mime_type.mime_type);
    check_size(size_bytes, Some(kind), limits)?;
    Ok((ContentSummary { size_bytes, mime_type, kind }, sniffed))
}

/// Builds the commit of a file that is still PROCESSING. It is committed under the request id derived from
/// its upload, so that completing the upload again returns the same response.
fn new_processing_commit(
    app: &App,
    caller: &Caller,
    stored: &StoredUpload,
    target: &Target,
    content: ContentSummary,
) -> PendingCommit {
    let mut spec = stored.spec.clone();
    spec.checked.request_id = Some(commit_request_id(stored.upload.id));
    let blob = target.to_blob(content.size_bytes, None);
    let mut finished =
        new_pending_commit(app, caller, spec, &content, blob, Some(stored.lease), app.clock.now());
    finished.content.content_state = ContentState::Processing;
    finished
}
