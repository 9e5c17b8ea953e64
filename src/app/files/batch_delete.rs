//! Moves several files to the trash: all of them, or none.

use std::collections::HashMap;

use serde_json::Map;

use super::{
    Changed, conclude,
    delete::to_trash,
    purge::{check_kept, take_apart},
    settlement::Settlement,
};
use crate::{
    app::{
        App, Error,
        access::{can_write, seen},
        audit,
        idempotency::{self, Begun},
    },
    db::{TenantTx, Viewer, audit_entries::AuditAction, files, idempotency_keys::Method},
    domain::{
        caller::Caller,
        file::File,
        ids::{FileId, RequestId},
        violations::Violations,
    },
};

/// One transaction holds the locks of all of them.
const FILES_MAX: usize = 100;

/// Why one file of a batch cannot be deleted; the later, the less grave.
enum Refusal {
    Missing,
    NotAllowed(&'static str),
    Kept(Error),
}

/// Moves several files to the trash, in one transaction; where the policy keeps none, purges them and answers nothing.
/// Files that are in the trash already stay as they are. Answers the files in the order of their ids as given, without what
/// makes a record large.
///
/// # Errors
/// `Invalid` for no id, too many, or one that stands twice; `Batch`, with every id that was refused: because of `NotFound`,
/// `NotAllowed`, `FileRetained`.
pub async fn batch_delete(
    app: &App,
    caller: &Caller,
    ids: Vec<FileId>,
    request_id: Option<RequestId>,
) -> Result<Changed<Vec<File>>, Error> {
    check(&ids)?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let mut denied = Vec::new();
    let deleted = run(app, &mut tx, caller, &ids, (request_id, &mut denied)).await;
    let deleted = tx.finish(deleted).await;
    for (id, why) in denied {
        // A denial that cannot be recorded is not answered as if it were.
        if let why @ (Error::DatabaseUnavailable(_) | Error::Internal(_)) =
            audit::denied(app, caller, AuditAction::FileDelete, Some(id), Error::NotAllowed(why)).await
        {
            return Err(why);
        }
    }
    deleted
}

fn check(ids: &[FileId]) -> Result<(), Violations> {
    if ids.is_empty() || ids.len() > FILES_MAX {
        let wrong = format!("must have 1 to {FILES_MAX} ids, has {}", ids.len());
        return Err(Violations::one("file_ids", wrong));
    }
    let mut wrong = Violations::new();
    let mut places = HashMap::new();
    for (place, id) in ids.iter().enumerate() {
        if let Some(first) = places.insert(*id, place) {
            wrong.add(format!("file_ids[{place}]"), format!("is the same as file_ids[{first}]"));
        }
    }
    wrong.into_result()
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    ids: &[FileId],
    (request_id, denied): (Option<RequestId>, &mut Vec<(FileId, &'static str)>),
) -> Result<Changed<Vec<File>>, Error> {
    let mut payload = vec![caller.actor.id.clone().into_bytes()];
    payload.extend(ids.iter().map(|id| id.as_uuid().into_bytes().to_vec()));
    let attempt = match idempotency::begin(app, tx, request_id, Method::BatchDeleteFiles, &payload).await? {
        Begun::Replay(answer) => return Ok(answer),
        Begun::Fresh(attempt) => attempt,
    };
    let visible = files::get_all_for_update(tx, ids).await?.into_iter();
    let visible = visible.filter_map(|found| seen(caller, Some(found)).ok());
    let mut by_id: HashMap<FileId, File> = visible.map(|file| (file.id, file)).collect();
    let is_purged = caller.tenant.policy.trash.days == 0;
    let (mut found, mut refused) = (Vec::with_capacity(ids.len()), Vec::new());
    for (place, id) in ids.iter().enumerate() {
        match admit(tx, caller, by_id.remove(id), is_purged).await? {
            Ok(file) => found.push(file),
            Err(refusal) => {
                if let Refusal::NotAllowed(why) = refusal {
                    denied.push((*id, why));
                }
                refused.push((place, refusal));
            }
        }
    }
    if !refused.is_empty() {
        return Err(all_refused(refused));
    }
    let mut settlement = Settlement::default();
    let mut deleted = Vec::with_capacity(found.len());
    for file in found {
        if file.trash.is_some() {
            deleted.push(brief(file));
        } else if is_purged {
            take_apart(app, tx, caller, &file, &mut settlement).await?;
        } else {
            deleted.push(brief(to_trash(tx, caller, &file, (&mut settlement, serde_json::json!({}))).await?));
        }
    }
    settlement.apply(app, tx).await?;
    conclude(tx, attempt, deleted).await
}

/// Whether one file may be deleted. The outer error is that of the database.
async fn admit(
    tx: &mut TenantTx,
    caller: &Caller,
    found: Option<File>,
    is_purged: bool,
) -> Result<Result<File, Refusal>, Error> {
    let Some(file) = found else { return Ok(Err(Refusal::Missing)) };
    if let Err(Error::NotAllowed(why)) = can_write(caller, &file) {
        return Ok(Err(Refusal::NotAllowed(why)));
    }
    if is_purged && file.trash.is_none() {
        match check_kept(tx, &file).await {
            Err(kept @ Error::FileRetained { .. }) => return Ok(Err(Refusal::Kept(kept))),
            checked => checked?,
        }
    }
    Ok(Ok(file))
}

/// One answer for all: of the gravest kind, with every id that was refused.
fn all_refused(refused: Vec<(usize, Refusal)>) -> Error {
    let mut violations = Violations::new();
    let (mut missing, mut not_allowed, mut kept) = (None, None, None);
    for (place, refusal) in refused {
        let (word, error) = match refusal {
            Refusal::Missing => ("not found", Error::NotFound("file")),
            Refusal::NotAllowed(why) => ("not allowed", Error::NotAllowed(why)),
            Refusal::Kept(error) => ("must be kept", error),
        };
        violations.add_of_batch("file_ids", place, word);
        let slot = match error {
            Error::NotFound(_) => &mut missing,
            Error::NotAllowed(_) => &mut not_allowed,
            _ => &mut kept,
        };
        slot.get_or_insert(error);
    }
    let why = missing.or(not_allowed).or(kept);
    Error::Batch { why: Box::new(why.unwrap_or(Error::NotFound("file"))), violations }
}

/// A hundred records in full could be more than most clients accept, and than should be kept under a request id.
fn brief(file: File) -> File {
    File { description: String::new(), metadata: Map::new(), ..file }
}
