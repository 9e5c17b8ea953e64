//! Hands out every record of a tenant, a page at a time.
//!
//! The records only: the operator never reads a tenant's files. Each version tells the provider and the key of its bytes,
//! so that whoever runs the store can copy them there; the tenant's own people download them. It is no snapshot: what
//! changes meanwhile may be told as it was or as it is. Suspend the tenant first where that matters.

use std::{collections::VecDeque, sync::Arc};

use futures::{Stream, stream};
use uuid::Uuid;

use super::{entry, get};
use crate::{
    app::{App, Error, files::fill},
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction, WrittenEntry},
        files, lists, quotas,
        tenants::{self, StoredPolicy},
        versions::{self, ExportedVersion},
    },
    domain::{
        caller::{Operator, TenantState},
        clock::Timestamp,
        file::File,
        ids::{FileId, TenantId},
        quota::Quota,
        tenant_record::TenantRecord,
    },
};

/// Rows of one page.
const PAGE_ROWS: usize = 200;

/// One record.
#[derive(Debug, Clone)]
pub enum ExportRecord {
    /// The tenant and its policy; the first record.
    Tenant(Box<TenantRecord>, Box<StoredPolicy>),
    /// Its quota; the second.
    Quota(Box<Quota>),
    /// A file with its tags and attachments.
    File(Box<File>),
    /// A version of the file before.
    Version(Box<ExportedVersion>),
    /// An entry of the audit log; they come last.
    Audit(Box<WrittenEntry>),
}

/// Where an export has come to.
enum Place {
    Start(Box<TenantRecord>),
    /// Behind this file.
    Files(Option<FileId>),
    /// Among the versions of these files.
    Versions(Versions),
    Audit(Timestamp, i64),
    End,
}

/// A page of files whose versions are being told. A file may have any number of them, so they come in pages too.
struct Versions {
    files: Vec<FileId>,
    /// Those of the files that are not told yet.
    waiting: VecDeque<File>,
    /// The version that was told last.
    after: (FileId, i32),
    /// Whether no file comes behind these.
    is_last: bool,
}

/// Begins an export: writes it into the tenant's audit log, and answers its records.
///
/// # Errors
/// `NotFound`, `TenantDeleted`; in the stream, when the database does not answer.
pub async fn export(
    app: &Arc<App>,
    operator: &Operator,
    id: TenantId,
) -> Result<impl Stream<Item = Result<ExportRecord, Error>> + Send + use<>, Error> {
    let record = get::get(app, operator, id).await?;
    if matches!(record.state, TenantState::Deleting | TenantState::Deleted) {
        return Err(Error::TenantDeleted);
    }
    let mut tx = app.db.tenant_tx(id, &Viewer::system()).await?;
    let entry = entry(operator, AuditAction::TenantExport, serde_json::json!({}));
    let written = audit_entries::insert(&mut tx, &[entry]).await;
    tx.finish(written).await?;

    let start = (Arc::clone(app), Place::Start(Box::new(record)), VecDeque::new());
    Ok(stream::try_unfold(start, move |(app, mut place, mut page)| async move {
        loop {
            if let Some(record) = page.pop_front() {
                return Ok(Some((record, (app, place, page))));
            }
            let is_over = matches!(place, Place::End);
            let mut tx = app.db.tenant_tx(id, &Viewer::system()).await?;
            let next = read(&mut tx, place).await;
            (page, place) = tx.finish(next).await?;
            if is_over {
                return Ok(None);
            }
        }
    }))
}

async fn read(tx: &mut TenantTx, place: Place) -> Result<(VecDeque<ExportRecord>, Place), Error> {
    // Records that are being erased must not look like records that there never were. In the page's own transaction, and
    // the last page, which is empty, asks again: an export that ends is complete.
    if matches!(tenants::state(tx).await?, TenantState::Deleting | TenantState::Deleted) {
        return Err(Error::TenantDeleted);
    }
    let limit = i64::try_from(PAGE_ROWS).unwrap_or(i64::MAX);
    match place {
        Place::Start(record) => {
            let policy = Box::new(tenants::policy(tx).await?);
            let quota = quotas::get(tx).await?;
            let page = [ExportRecord::Tenant(record, policy), ExportRecord::Quota(Box::new(quota))];
            Ok((page.into(), Place::Files(None)))
        }
        Place::Files(after) => {
            let mut files = files::list_after(tx, after, limit).await?;
            fill(tx, &mut files).await?;
            let versions = Versions {
                files: lists::ids(&files),
                is_last: files.len() < PAGE_ROWS,
                waiting: files.into(),
                after: (FileId::from_uuid(Uuid::nil()), 0),
            };
            Ok((VecDeque::new(), Place::Versions(versions)))
        }
        Place::Versions(mut told) => {
            let rows = versions::list_after(tx, &told.files, told.after, limit).await?;
            let is_all = rows.len() < PAGE_ROWS;
            told.after = rows.last().map_or(told.after, |last| (last.file, last.stored.version));
            let page = weave(&mut told.waiting, rows, is_all);
            let next = match (is_all, told.is_last) {
                (false, _) => Place::Versions(told),
                (true, true) => Place::Audit(Timestamp::UNIX_EPOCH, 0),
                (true, false) => Place::Files(told.files.last().copied()),
            };
            Ok((page, next))
        }
        Place::Audit(time, n) => {
            let entries = audit_entries::list_after(tx, (time, n), limit).await?;
            let next = entries.last().filter(|_| entries.len() == PAGE_ROWS);
            let next = next.map_or(Place::End, |last| Place::Audit(last.create_time, last.n));
            Ok((entries.into_iter().map(|entry| ExportRecord::Audit(Box::new(entry))).collect(), next))
        }
        Place::End => Ok((VecDeque::new(), Place::End)),
    }
}

/// Each file before its versions; both come in the order of the files' ids.
fn weave(
    waiting: &mut VecDeque<File>,
    versions: Vec<ExportedVersion>,
    is_all: bool,
) -> VecDeque<ExportRecord> {
    let mut page = VecDeque::with_capacity(versions.len());
    for version in versions {
        while waiting.front().is_some_and(|file| file.id <= version.file) {
            page.extend(waiting.pop_front().map(|file| ExportRecord::File(Box::new(file))));
        }
        page.push_back(ExportRecord::Version(Box::new(version)));
    }
    if is_all {
        page.extend(waiting.drain(..).map(|file| ExportRecord::File(Box::new(file))));
    }
    page
}
