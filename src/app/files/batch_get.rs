//! Reads the records of several files.

use std::collections::{HashMap, HashSet};

use super::fill;
use crate::{
    app::{App, Error, access::seen},
    db::{TenantTx, Viewer, files},
    domain::{caller::Caller, file::File, ids::FileId, violations::Violations},
};

/// In full a file has up to some 25 KiB, and most clients accept 4 MiB in one answer.
const FILES_MAX: usize = 100;

/// What was found of what was asked for.
#[derive(Debug)]
pub struct Found {
    /// The files, in the order of their ids.
    pub files: Vec<File>,
    /// The ids that name no file that the caller may see.
    pub missing: Vec<FileId>,
}

/// The records of files, also of those in the trash; an id that stands twice is answered once. With tags and attachments
/// where they are shown in full.
///
/// # Errors
/// `Invalid` where there is no id, or too many.
pub async fn batch_get(app: &App, caller: &Caller, ids: Vec<FileId>, is_full: bool) -> Result<Found, Error> {
    if ids.is_empty() || ids.len() > FILES_MAX {
        let wrong = format!("must have 1 to {FILES_MAX} ids, has {}", ids.len());
        return Err(Violations::one("file_ids", wrong).into());
    }
    let mut known = HashSet::new();
    let ids: Vec<FileId> = ids.into_iter().filter(|id| known.insert(*id)).collect();
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let found = read(&mut tx, caller, ids, is_full).await;
    tx.finish(found).await
}

async fn read(tx: &mut TenantTx, caller: &Caller, ids: Vec<FileId>, is_full: bool) -> Result<Found, Error> {
    let visible = files::get_all(tx, &ids).await?.into_iter();
    let visible = visible.filter_map(|found| seen(caller, Some(found)).ok());
    let mut by_id: HashMap<FileId, File> = visible.map(|file| (file.id, file)).collect();
    let (mut files, mut missing) = (Vec::with_capacity(by_id.len()), Vec::new());
    for id in ids {
        match by_id.remove(&id) {
            Some(file) => files.push(file),
            None => missing.push(id),
        }
    }
    if is_full {
        fill(tx, &mut files).await?;
    }
    Ok(Found { files, missing })
}
