//! Ends a direct upload: its bytes are put together in the store and become a file at once, which nobody reads until a job
//! has: see `verify`.
//!
//! What it is by its first bytes is looked at here, in the object that no URL can write any more: so a type that its category
//! does not take, or a file too large for its kind, is refused like in every upload, and the usage is counted under its kind.

use std::sync::Arc;

use futures::StreamExt as _;

use super::place;
use crate::{
    app::{
        App, Error,
        uploads::{
            answered::{answered, request_id},
            commit::{Committed, FinishedUpload, Verification},
            give_up::{Left, give_up},
            open::lease_seconds,
            receive::{
                content::{Measured, check_size},
                message::Completion,
            },
            target::{Target, of_parts, remove_object},
            upload::{Uploaded, finished, uploaded},
        },
    },
    db::{
        TenantTx, Viewer, quotas,
        resumable_uploads::{self, StoredUpload},
    },
    domain::{
        caller::Caller,
        checksum::Crc64,
        digest::Digest,
        file::ContentState,
        ids::{JobId, UploadId},
        media_type::{MediaKind, judged, settle},
        policy::FileSizeLimits,
        upload::UploadState,
        upload_spec::CheckedSpec,
        violations::Violations,
    },
    media::sniff::{SNIFF_BYTES_MAX, sniff},
    storage::{MultipartId, ObjectStorage, PartReceipt, PutOptions, StorageErrorKind},
};

/// Ends an open direct upload of this caller, or answers again what it became.
///
/// # Errors
/// Those of `complete`.
pub(in crate::app::uploads) async fn complete_direct(
    app: &Arc<App>,
    caller: &Caller,
    id: UploadId,
    completion: Completion,
) -> Result<Uploaded, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let taken = take(app, &mut tx, caller, id).await;
    let Some((stored, limits)) = tx.finish(taken).await? else {
        return answered(app, caller, id).await.map(uploaded);
    };
    let size_bytes =
        stored.spec.size_bytes.ok_or_else(|| Error::internal("a direct upload without a size"))?;
    let sha256 = check(&completion, &stored.spec, size_bytes)?;
    let target = Target {
        store: Arc::clone(app.stores.of(&stored.provider)?),
        blob_id: stored.blob_id,
        key: stored.key.clone(),
        options: PutOptions::of_blob(caller.tenant_id(), Some(&caller.actor.id)),
        is_version: stored.spec.file.is_some(),
    };
    let looked = async {
        assemble(&stored, &target, size_bytes, &completion.parts).await?;
        look(&stored.spec, &target, size_bytes, &limits).await
    };
    let (committed, is_hopeless) = match looked.await {
        Ok((content, sniffed)) => {
            let verification = Some(Verification { id: JobId::from_uuid(app.ids.uuid()), sha256, sniffed });
            let finished = FinishedUpload { verification, ..file_of(app, caller, &stored, &target, content) };
            let committed = app.commits.submit(caller.tenant_id(), finished).await;
            let committed = committed.unwrap_or_else(|lost| Err(Error::OutcomeUnknown(lost.into())));
            let is_hopeless = matches!(
                committed,
                Err(Error::NotFound(_) | Error::NotAllowed(_) | Error::Invalid(_) | Error::EtagMismatch)
            );
            (committed, is_hopeless)
        }
        // The client may send what is missing, or something else.
        Err(error) => (Err(error), false),
    };
    match is_hopeless {
        true => abandon(app, caller, &stored, &target).await,
        false => clear_behind(&stored, target, &committed).await,
    }
    committed.map(|committed| uploaded(committed.answer))
}

/// Gives up what can never become a file: the one that it is a version of is gone, or not the caller's to change any more, or
/// its category is another or none.
async fn abandon(app: &App, caller: &Caller, stored: &StoredUpload, target: &Target) {
    let multipart = MultipartId::new(stored.multipart_id.as_str());
    let left = Left::of(caller.tenant_id(), stored, &multipart);
    if let Err(error) = give_up(app, target.store.as_ref(), left).await {
        tracing::warn!(upload = %stored.lease.id, %error, "give up direct upload");
    }
}

/// What became a file leaves nothing where it was sent to; what did not, no copy that nobody will ask for: the next attempt
/// makes its own.
async fn clear_behind(stored: &StoredUpload, target: Target, committed: &Result<Committed, Error>) {
    match (committed, stored.staging_key.clone()) {
        (Ok(committed), Some(staging_key)) => {
            if committed.is_replay {
                remove_object(&target).await;
            }
            // What a URL that is still alive writes there later is swept.
            remove_object(&Target { key: staging_key, ..target }).await;
        }
        // It may be a file.
        (Err(Error::OutcomeUnknown(_)), _) => {}
        (Err(_), Some(_)) => remove_object(&target).await,
        (Ok(_) | Err(_), None) => {}
    }
}

/// Takes the upload over; answers nothing for one that is a file. One of one piece gets a key that was never copied to: a
/// fenced writer may still copy to the former one.
async fn take(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: UploadId,
) -> Result<Option<(StoredUpload, FileSizeLimits)>, Error> {
    resumable_uploads::take_over(tx, id, lease_seconds(app)).await?;
    let stored = resumable_uploads::get(tx, id).await?;
    let stored = stored.filter(|stored| stored.upload.created_by == caller.actor.id);
    let mut stored = stored.ok_or(Error::NotFound("upload"))?;
    if stored.upload.state == UploadState::Committed {
        return Ok(None);
    }
    if stored.staging_key.is_some() {
        let fresh = place(app, caller, &stored.spec)?;
        if !resumable_uploads::retarget(tx, stored.lease, fresh.blob_id, &fresh.key).await? {
            return Err(Error::UploadFenced);
        }
        (stored.blob_id, stored.key) = (fresh.blob_id, fresh.key);
    }
    let limits = quotas::get(tx).await?.file_size_max_bytes;
    Ok(Some((stored, limits)))
}

/// What was said at the end, against what was declared; answers the digest, if one was said.
fn check(completion: &Completion, spec: &CheckedSpec, size_bytes: u64) -> Result<Option<Digest>, Error> {
    let mut wrong = Violations::new();
    if completion.size_bytes.is_some_and(|said| u64::try_from(said) != Ok(size_bytes)) {
        wrong.add("size_bytes", format!("must be the {size_bytes} that were declared, or left out"));
    }
    let said = completion.sha256.as_deref();
    let said = said.and_then(|raw| wrong.take("sha256", Digest::from_slice(raw)));
    if let (Some(said), Some(declared)) = (said, spec.sha256)
        && said != declared
    {
        wrong.add("sha256", format!("must be the one that was declared ({declared}), or left out"));
    }
    wrong.into_result()?;
    Ok(said.or(spec.sha256))
}

/// Makes the object that no URL can write.
async fn assemble(
    stored: &StoredUpload,
    target: &Target,
    size_bytes: u64,
    parts: &[(i32, String)],
) -> Result<(), Error> {
    let Target { store, key, options, .. } = target;
    check_named(parts, size_bytes.div_ceil(stored.upload.part_size_bytes).max(1))?;
    let made = match &stored.staging_key {
        Some(staging_key) => {
            let staged = match store.head(staging_key).await {
                Err(error) if error.kind == StorageErrorKind::NotFound => {
                    let wrong = "nothing was sent to its URL yet; PUT the bytes, then complete again";
                    return Err(Violations::one("upload_id", wrong).into());
                }
                staged => staged?,
            };
            check_total(size_bytes, staged.size_bytes)?;
            store.copy(staging_key, key, options).await?.size_bytes
        }
        None => {
            let multipart = MultipartId::new(stored.multipart_id.as_str());
            match store.list_parts(key, &multipart).await {
                Ok(receipts) => {
                    check_parts(stored, size_bytes, &receipts, parts)?;
                    let put_together = store.complete_multipart(key, &multipart, &receipts).await;
                    put_together.map_err(|error| match error.kind {
                        StorageErrorKind::InvalidInput => sent_again_meanwhile(),
                        _ => of_parts(error),
                    })?;
                }
                // It was put together before, and the commit was not.
                Err(error) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            store.head(key).await.map_err(of_parts)?.size_bytes
        }
    };
    check_total(size_bytes, made)
}

/// A URL is alive until the parts are together.
fn sent_again_meanwhile() -> Error {
    let wrong = "were sent again while they were put together; complete again with their etags of now";
    Violations::one("parts", wrong).into()
}

fn check_total(declared: u64, received: u64) -> Result<(), Error> {
    if declared == received { Ok(()) } else { Err(Error::SizeMismatch { declared, received }) }
}

/// Whether all parts are there, as large as they must be, and those that the client sent.
fn check_parts(
    stored: &StoredUpload,
    size_bytes: u64,
    receipts: &[PartReceipt],
    parts: &[(i32, String)],
) -> Result<(), Error> {
    let part_size_bytes = stored.upload.part_size_bytes;
    let mut wrong = Violations::new();
    for (number, place) in (1..).zip(0..size_bytes.div_ceil(part_size_bytes)) {
        let field = format!("parts[{place}]");
        let Some(receipt) = receipts.iter().find(|receipt| receipt.number == number) else {
            wrong.add(field, format!("part {number} is not in the store; PUT it, then complete again"));
            continue;
        };
        let declared = part_size_bytes.min(size_bytes - place * part_size_bytes);
        if receipt.size_bytes != declared {
            return Err(Error::PartSizeMismatch { number, declared, received: receipt.size_bytes });
        }
        let said = parts.iter().find(|(said, _)| u32::try_from(*said) == Ok(number));
        match said {
            Some((_, etag)) if etag.trim_matches('"') == receipt.etag.trim_matches('"') => {}
            Some(_) => wrong.add(field, format!("part {number} has another etag in the store; PUT it again")),
            None => wrong.add(field, format!("part {number} is missing; name it with its etag")),
        }
    }
    let count = size_bytes.div_ceil(part_size_bytes);
    for receipt in receipts.iter().filter(|receipt| u64::from(receipt.number) > count) {
        wrong.add("parts", format!("part {} was sent, and there are only {count}", receipt.number));
    }
    Ok(wrong.into_result()?)
}

/// Whether the client names parts that there are, each once.
fn check_named(parts: &[(i32, String)], count: u64) -> Result<(), Violations> {
    let mut wrong = Violations::new();
    for (place, (number, _)) in parts.iter().enumerate() {
        let field = format!("parts[{place}].number");
        if !u64::try_from(*number).is_ok_and(|number| (1..=count).contains(&number)) {
            wrong.add(field, format!("there is no part {number}: they are numbered from 1 to {count}"));
        } else if parts[..place].iter().any(|(before, _)| before == number) {
            wrong.add(field, format!("part {number} is named twice"));
        }
    }
    wrong.into_result()
}

/// What the object is by its first bytes, if its category takes such files.
async fn look(
    spec: &CheckedSpec,
    target: &Target,
    size_bytes: u64,
    limits: &FileSizeLimits,
) -> Result<(Measured, Option<String>), Error> {
    let sniffed = sniff(&head(target.store.as_ref(), target, size_bytes).await?);
    let mime_type = settle(&spec.declared_mime_type, sniffed.as_deref());
    spec.types.check(&judged(&mime_type.mime_type, sniffed.as_deref(), &spec.judged_name))?;
    let kind = MediaKind::of(&mime_type.mime_type);
    check_size(size_bytes, Some(kind), limits)?;
    Ok((Measured { size_bytes, sha256: Digest::UNKNOWN, mime_type, kind }, sniffed))
}

async fn head(store: &dyn ObjectStorage, target: &Target, size_bytes: u64) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    let mut bytes = store.get(&target.key, 0..size_bytes.min(SNIFF_BYTES_MAX as u64)).await?;
    while let Some(piece) = bytes.next().await {
        head.extend_from_slice(&piece?);
    }
    Ok(head)
}

/// The file, which nobody reads yet. It is committed under its upload's id, so that a repetition gets the same answer.
fn file_of(
    app: &App,
    caller: &Caller,
    stored: &StoredUpload,
    target: &Target,
    content: Measured,
) -> FinishedUpload {
    let spec = CheckedSpec { request_id: Some(request_id(stored.upload.id)), ..stored.spec.clone() };
    let blob = target.blob(content.size_bytes, content.sha256, Crc64::of(&[]));
    let mut finished = finished(app, caller, spec, &content, blob, (Some(stored.lease), app.clock.now()));
    finished.file.content_state = ContentState::Processing;
    finished
}
