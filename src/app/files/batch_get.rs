//! Reads the records of several files.

use std::collections::{HashMap, HashSet};

use super::{
    load_details,
    read_records::{Records, View, read_records},
};
use crate::{
    app::{App, Error, access::require_visible, pages},
    db::{TenantTx, Viewer, files},
    domain::{caller::Caller, file::File, ids::FileId, violations::Violations},
};

/// The maximum number of files in a batch.
pub const FILES_MAX: usize = 100;

/// The result of a batch read.
#[derive(Debug)]
pub struct BatchGetResult {
    /// The files, in the order of the requested ids.
    pub files: Vec<File>,
    /// The ids of files that do not exist or that the caller may not see.
    pub missing: Vec<FileId>,
    /// The ids of files that do not fit into the response, in the order of the requested ids.
    pub unread: Vec<FileId>,
}

/// Reads the records of up to 100 files, including files in the trash. Returns a file once even if its id is
/// repeated. Full records include tags, attachments and download counts. Returns as many files as fit into one
/// response, and at least one.
///
/// # Errors
/// Returns `Invalid` if there is no id or more than 100.
pub async fn batch_get_files(
    app: &App,
    caller: &Caller,
    ids: Vec<FileId>,
    is_full: bool,
) -> Result<BatchGetResult, Error> {
    if ids.is_empty() || ids.len() > FILES_MAX {
        let problem = format!("must have 1 to {FILES_MAX} ids, has {}", ids.len());
        return Err(Violations::one("file_ids", problem).into());
    }
    let mut unique = HashSet::new();
    let ids: Vec<FileId> = ids.into_iter().filter(|id| unique.insert(*id)).collect();
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let result = batch_get_in_tx(&mut tx, caller, ids, is_full).await;
    tx.finish(result).await
}

async fn batch_get_in_tx(
    tx: &mut TenantTx,
    caller: &Caller,
    ids: Vec<FileId>,
    is_full: bool,
) -> Result<BatchGetResult, Error> {
    let view = View::new(is_full);
    // Of more records than one batch, the keys are read first.
    let is_one_batch = ids.len() <= view.batch_max();
    let found = if is_full && is_one_batch {
        files::get_all(tx, &ids).await?
    } else {
        files::get_all_basic(tx, &ids).await?
    };
    let visible = found.into_iter();
    let visible = visible.filter_map(|found| require_visible(caller, Some(found)).ok());
    let mut by_id: HashMap<FileId, File> = visible.map(|file| (file.id, file)).collect();
    let (mut files, mut missing) = (Vec::with_capacity(by_id.len()), Vec::new());
    for id in ids {
        match by_id.remove(&id) {
            Some(file) => files.push(file),
            None => missing.push(id),
        }
    }
    if !is_one_batch {
        let ids: Vec<FileId> = files.iter().map(|file| file.id).collect();
        let Records { files, unread } = read_records(tx, &ids, view).await?;
        return Ok(BatchGetResult { files, missing, unread });
    }
    if is_full {
        load_details(tx, &mut files).await?;
    }
    let rest = pages::cut_page(&mut files, FILES_MAX, view.weight());
    let unread = rest.into_iter().map(|file| file.id).collect();
    Ok(BatchGetResult { files, missing, unread })
}
