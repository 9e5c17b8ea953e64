//! Moves several files to the trash: all of them, or none.

use std::collections::HashMap;

use serde_json::Map;

use super::{
    MutationResponse,
    delete::move_to_trash,
    finish_mutation,
    pending_release::PendingRelease,
    purge::{check_retention, delete_rows},
};
use crate::{
    app::{
        App, Denial, Error, Resource,
        access::{Operation, can_see, check_access},
        audit,
        idempotency::{self, RequestClaim},
    },
    db::{
        TenantTx, Viewer, audit_entries::AuditAction, file_locks, files::VisibleFile,
        idempotency_keys::Method,
    },
    domain::{
        caller::Caller,
        file::File,
        ids::{FileId, RequestId},
        violations::Violations,
    },
};

/// The maximum number of files in a batch. One transaction holds the locks of all of them.
pub const FILES_MAX: usize = 100;

/// The reason that a file of a batch cannot be deleted, in order of decreasing severity.
enum Refusal {
    Missing,
    NotAllowed(Denial),
    Retained(Error),
}

/// A file that the caller may not change.
struct DeniedFile {
    id: FileId,
    reason: Denial,
}

/// An id of the request whose file cannot be deleted.
struct RefusedId {
    index: usize,
    refusal: Refusal,
}

/// Moves up to 100 files to the trash in one transaction. If the policy has no trash, purges them and returns
/// no files. Files that are already in the trash stay unchanged. Returns the files in the order of the given
/// ids, without their descriptions and metadata.
///
/// # Errors
/// Returns `Invalid` if there is no id, more than 100, or a duplicate. Returns `Batch` with every rejected id
/// if any file is rejected with `NotFound`, `NotAllowed` or `FileRetained`.
pub async fn batch_delete_files(
    app: &App,
    caller: &Caller,
    ids: Vec<FileId>,
    request_id: Option<RequestId>,
) -> Result<MutationResponse<Vec<File>>, Error> {
    check_ids(&ids)?;
    app.owners.check_primary()?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let mut denied = Vec::new();
    let deleted = batch_delete_in_tx(app, &mut tx, caller, &ids, request_id, &mut denied).await;
    let deleted = tx.finish(deleted).await;
    for DeniedFile { id, reason } in denied {
        // Never report a denial that was not recorded.
        if let error @ (Error::DatabaseUnavailable(_) | Error::Overloaded(_) | Error::Internal(_)) =
            audit::record_denial(app, caller, AuditAction::FileDelete, Some(id), Error::NotAllowed(reason))
                .await
        {
            return Err(error);
        }
    }
    deleted
}

fn check_ids(ids: &[FileId]) -> Result<(), Violations> {
    if ids.is_empty() || ids.len() > FILES_MAX {
        let problem = format!("must have 1 to {FILES_MAX} ids, has {}", ids.len());
        return Err(Violations::one("file_ids", problem));
    }
    let mut violations = Violations::new();
    let mut indexes = HashMap::new();
    for (index, id) in ids.iter().enumerate() {
        if let Some(first) = indexes.insert(*id, index) {
            violations.add(format!("file_ids[{index}]"), format!("is the same as file_ids[{first}]"));
        }
    }
    violations.into_result()
}

async fn batch_delete_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    ids: &[FileId],
    request_id: Option<RequestId>,
    denied: &mut Vec<DeniedFile>,
) -> Result<MutationResponse<Vec<File>>, Error> {
    let mut payload = vec![caller.actor.id.clone().into_bytes()];
    payload.extend(ids.iter().map(|id| id.as_uuid().into_bytes().to_vec()));
    let attempt =
        match idempotency::claim_request(app, tx, request_id, Method::BatchDeleteFiles, &payload).await? {
            RequestClaim::Replay(response) => {
                idempotency::check_files_visible(tx, caller, ids).await?;
                return Ok(response);
            }
            RequestClaim::New(attempt) => attempt,
        };
    let visible = file_locks::get_all_for_update(tx, ids).await?.into_iter();
    let visible = visible.filter(|found| can_see(caller, found));
    let mut by_id: HashMap<FileId, VisibleFile> = visible.map(|found| (found.file.id, found)).collect();
    let is_purged = caller.tenant.policy.trash.days == 0;
    let (mut found, mut refused) = (Vec::with_capacity(ids.len()), Vec::new());
    for (index, id) in ids.iter().enumerate() {
        match check_file(tx, caller, by_id.remove(id), is_purged).await? {
            Ok(file) => found.push(file),
            Err(refusal) => {
                if let Refusal::NotAllowed(reason) = refusal {
                    denied.push(DeniedFile { id: *id, reason });
                }
                refused.push(RefusedId { index, refusal });
            }
        }
    }
    if !refused.is_empty() {
        return Err(batch_error(refused));
    }
    let mut release = PendingRelease::default();
    let mut deleted = Vec::with_capacity(found.len());
    for file in found {
        if file.trash.is_some() {
            deleted.push(strip_description_and_metadata(file));
        } else if is_purged {
            delete_rows(app, tx, caller, &file, &mut release).await?;
        } else {
            deleted.push(strip_description_and_metadata(
                move_to_trash(tx, caller, &file, &mut release, serde_json::json!({})).await?,
            ));
        }
    }
    release.apply(app, tx).await?;
    finish_mutation(tx, attempt, deleted).await
}

/// Checks whether one file of the batch may be deleted. The outer error is a failure of the check itself.
async fn check_file(
    tx: &mut TenantTx,
    caller: &Caller,
    found: Option<VisibleFile>,
    is_purged: bool,
) -> Result<Result<File, Refusal>, Error> {
    let Some(found) = found else { return Ok(Err(Refusal::Missing)) };
    if let Err(Error::NotAllowed(reason)) = check_access(caller, &found, Operation::Delete) {
        return Ok(Err(Refusal::NotAllowed(reason)));
    }
    let file = found.file;
    if is_purged && file.trash.is_none() {
        match check_retention(tx, &file).await {
            Err(error @ Error::FileRetained { .. }) => return Ok(Err(Refusal::Retained(error))),
            checked => checked?,
        }
    }
    Ok(Ok(file))
}

/// Returns one error for all rejected ids, with the most severe reason.
fn batch_error(refused: Vec<RefusedId>) -> Error {
    let mut violations = Violations::new();
    let (mut missing, mut not_allowed, mut retained) = (None, None, None);
    for RefusedId { index, refusal } in refused {
        let (description, error) = match refusal {
            Refusal::Missing => ("not found", Error::NotFound(Resource::File)),
            Refusal::NotAllowed(reason) => ("not allowed", Error::NotAllowed(reason)),
            Refusal::Retained(error) => ("must be kept", error),
        };
        violations.add_item("file_ids", index, description);
        let slot = match error {
            Error::NotFound(_) => &mut missing,
            Error::NotAllowed(_) => &mut not_allowed,
            _ => &mut retained,
        };
        slot.get_or_insert(error);
    }
    let reason = missing.or(not_allowed).or(retained);
    Error::Batch { reason: Box::new(reason.unwrap_or(Error::NotFound(Resource::File))), violations }
}

/// Removes the description and metadata. A hundred full records could exceed what most clients accept in one
/// message, and what should be stored as the response of a request id.
fn strip_description_and_metadata(file: File) -> File {
    File { description: String::new(), metadata: Map::new(), ..file }
}
