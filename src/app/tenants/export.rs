//! Exports all records of a tenant, one page at a time.
//!
//! The export contains records only: the operator never reads the files of a tenant. Each version has the
//! provider and key of its bytes, so that the operator of the store can copy them; members of the tenant can
//! download them. The export is not a snapshot: a record that changes during the export may be exported
//! before or after the change. Suspend the tenant first if that matters.

use std::{collections::VecDeque, sync::Arc};

use futures::{Stream, stream};

use super::{get, operator_entry};
use crate::{
    app::{App, Error, files::load_details, shares::load_recipients},
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction, StoredAuditEntry},
        credits,
        file_grants::{self, Grant},
        files, lists, quotas, shares,
        storage_charges::{self, StorageCharge},
        tenants::{self, StoredPolicy},
        user_quotas,
        versions::{self, ExportedVersion, VersionPosition},
    },
    domain::{
        caller::{Operator, TenantState},
        clock::Timestamp,
        credits::CreditEntry,
        file::File,
        ids::{FileId, GrantId, ShareId, TenantId},
        quota::Quota,
        share::Share,
        tenant_record::TenantRecord,
        user_quota::UserQuota,
    },
};

/// The number of rows in one page.
const PAGE_ROWS: usize = 200;

/// The number of files in one page. A page is in memory until the operator has received it, and a file with all
/// its details can be large.
const PAGE_FILES: usize = 32;

/// A record of an export.
#[derive(Debug, Clone)]
pub enum ExportRecord {
    /// The tenant and its policy. The first record.
    Tenant(Box<TenantRecord>, Box<StoredPolicy>),
    /// The quota. The second record.
    Quota(Box<Quota>),
    /// A file with its tags and attachments, followed by its versions.
    File(Box<File>),
    /// A version of the previous file.
    Version(Box<ExportedVersion>),
    /// The quota of a user.
    UserQuota(Box<UserQuota>),
    /// A permission on a file.
    Grant(Box<Grant>),
    /// A share with its recipients, and the time at which it was read. Its token and password are not stored.
    Share(Box<Share>, Timestamp),
    /// An entry of a user's credits.
    Credit(Box<CreditEntry>),
    /// What the storage of an owner cost on a day.
    StorageCharge(Box<StorageCharge>),
    /// An audit entry. Audit entries are the last records.
    Audit(Box<StoredAuditEntry>),
}

/// The position of an export.
enum Position {
    Start(Box<TenantRecord>),
    /// After this file.
    Files(Option<FileId>),
    /// Within the versions of these files.
    Versions(FileBatch),
    /// After this user.
    UserQuotas(String),
    /// After this grant.
    Grants(Option<(FileId, GrantId)>),
    /// After this share.
    Shares(Option<ShareId>),
    /// After this entry.
    Credits(Option<CreditEntry>),
    /// After this charge.
    StorageCharges(Option<StorageCharge>),
    Audit(Timestamp, i64),
    End,
}

/// A page of files whose versions are being exported. The versions are read in pages too, because a file may
/// have any number of them.
struct FileBatch {
    files: Vec<FileId>,
    /// The files that are not exported yet.
    pending: VecDeque<File>,
    /// The last exported version.
    after: Option<VersionPosition>,
    /// Whether this is the last page of files.
    is_last: bool,
}

/// Starts an export: writes an entry to the tenant's audit log and returns the stream of records.
///
/// # Errors
/// Returns `NotFound` or `TenantDeleted`. The stream also returns `DatabaseUnavailable` if the database is
/// unreachable.
pub async fn export_tenant(
    app: &Arc<App>,
    operator: &Operator,
    id: TenantId,
) -> Result<impl Stream<Item = Result<ExportRecord, Error>> + Send + use<>, Error> {
    let record = get::get_tenant(app, operator, id).await?;
    if matches!(record.state, TenantState::Deleting | TenantState::Deleted) {
        return Err(Error::TenantDeleted);
    }
    let mut tx = app.db.platform_tx(id, &Viewer::system()).await?;
    let entry = operator_entry(operator, AuditAction::TenantExport, serde_json::json!({}));
    let written = audit_entries::insert(&mut tx, &[entry]).await;
    tx.finish(written).await?;

    let start = (Arc::clone(app), Position::Start(Box::new(record)), VecDeque::new());
    Ok(stream::try_unfold(start, move |(app, mut position, mut page)| async move {
        loop {
            if let Some(record) = page.pop_front() {
                return Ok(Some((record, (app, position, page))));
            }
            let is_finished = matches!(position, Position::End);
            let mut tx = app.db.platform_tx(id, &Viewer::system()).await?;
            let next = read_page(&mut tx, position, app.clock.now()).await;
            (page, position) = tx.finish(next).await?;
            if is_finished {
                return Ok(None);
            }
        }
    }))
}

async fn read_page(
    tx: &mut TenantTx,
    position: Position,
    now: Timestamp,
) -> Result<(VecDeque<ExportRecord>, Position), Error> {
    // An export must not silently omit records that are being erased. The state is checked in the transaction
    // of each page, including the last, empty one, so that an export that ends without an error is complete.
    if matches!(tenants::get_state(tx).await?, TenantState::Deleting | TenantState::Deleted) {
        return Err(Error::TenantDeleted);
    }
    let limit = i64::try_from(PAGE_ROWS).unwrap_or(i64::MAX);
    match position {
        Position::Start(record) => {
            let policy = Box::new(tenants::get_policy(tx).await?);
            let quota = quotas::get(tx).await?;
            let page = [ExportRecord::Tenant(record, policy), ExportRecord::Quota(Box::new(quota))];
            Ok((page.into(), Position::Files(None)))
        }
        Position::Files(after) => {
            let limit = i64::try_from(PAGE_FILES).unwrap_or(i64::MAX);
            let mut files = files::list_after(tx, after, limit).await?;
            load_details(tx, &mut files).await?;
            let versions = FileBatch {
                files: lists::file_ids(&files),
                is_last: files.len() < PAGE_FILES,
                pending: files.into(),
                after: None,
            };
            Ok((VecDeque::new(), Position::Versions(versions)))
        }
        Position::Versions(mut batch) => {
            let rows = versions::list_after(tx, &batch.files, batch.after, limit).await?;
            let is_complete = rows.len() < PAGE_ROWS;
            if let Some(last) = rows.last() {
                batch.after = Some(VersionPosition { file: last.file, version: last.stored.version });
            }
            let page = interleave(&mut batch.pending, rows, is_complete);
            let next = match (is_complete, batch.is_last) {
                (false, _) => Position::Versions(batch),
                (true, true) => Position::UserQuotas(String::new()),
                (true, false) => Position::Files(batch.files.last().copied()),
            };
            Ok((page, next))
        }
        Position::UserQuotas(_) | Position::Grants(_) | Position::Shares(_) => {
            read_access_page(tx, position, now).await
        }
        Position::Credits(after) => {
            let entries = credits::list_after(tx, after.as_ref(), limit).await?;
            let next = entries.last().filter(|_| entries.len() == PAGE_ROWS).cloned();
            let next = next.map_or(Position::StorageCharges(None), |last| Position::Credits(Some(last)));
            Ok((entries.into_iter().map(|entry| ExportRecord::Credit(Box::new(entry))).collect(), next))
        }
        Position::StorageCharges(after) => {
            let charges = storage_charges::list_after(tx, after.as_ref(), limit).await?;
            let next = charges.last().filter(|_| charges.len() == PAGE_ROWS).cloned();
            let next = next.map_or(Position::Audit(Timestamp::UNIX_EPOCH, 0), |last| {
                Position::StorageCharges(Some(last))
            });
            let page = charges.into_iter().map(|charge| ExportRecord::StorageCharge(Box::new(charge)));
            Ok((page.collect(), next))
        }
        Position::Audit(time, n) => {
            let entries = audit_entries::list_after(tx, time, n, limit).await?;
            let next = entries.last().filter(|_| entries.len() == PAGE_ROWS);
            let next = next.map_or(Position::End, |last| Position::Audit(last.create_time, last.n));
            Ok((entries.into_iter().map(|entry| ExportRecord::Audit(Box::new(entry))).collect(), next))
        }
        Position::End => Ok((VecDeque::new(), Position::End)),
    }
}

/// Reads a page of the quotas of users, of grants or of shares.
async fn read_access_page(
    tx: &mut TenantTx,
    position: Position,
    now: Timestamp,
) -> Result<(VecDeque<ExportRecord>, Position), Error> {
    let limit = i64::try_from(PAGE_ROWS).unwrap_or(i64::MAX);
    match position {
        Position::UserQuotas(after) => {
            let quotas = user_quotas::list(tx, &after, limit).await?;
            let next = quotas.last().filter(|_| quotas.len() == PAGE_ROWS);
            let next = next.map_or(Position::Grants(None), |last| Position::UserQuotas(last.user_id.clone()));
            let page = quotas.into_iter().map(|quota| ExportRecord::UserQuota(Box::new(quota)));
            Ok((page.collect(), next))
        }
        Position::Grants(after) => {
            let grants = file_grants::list_after(tx, after, limit).await?;
            let next = grants.last().filter(|_| grants.len() == PAGE_ROWS);
            let next =
                next.map_or(Position::Shares(None), |last| Position::Grants(Some((last.file_id, last.id))));
            Ok((grants.into_iter().map(|grant| ExportRecord::Grant(Box::new(grant))).collect(), next))
        }
        Position::Shares(after) => {
            let mut page = shares::list_after(tx, after, limit).await?;
            load_recipients(tx, &mut page).await?;
            let next = page.last().filter(|_| page.len() == PAGE_ROWS);
            let next = next.map_or(Position::Credits(None), |last| Position::Shares(Some(last.id)));
            Ok((page.into_iter().map(|share| ExportRecord::Share(Box::new(share), now)).collect(), next))
        }
        other => Ok((VecDeque::new(), other)),
    }
}

/// Places each file before its versions. Both are in the order of the file ids.
fn interleave(
    pending: &mut VecDeque<File>,
    versions: Vec<ExportedVersion>,
    is_complete: bool,
) -> VecDeque<ExportRecord> {
    let mut page = VecDeque::with_capacity(versions.len());
    for version in versions {
        while pending.front().is_some_and(|file| file.id <= version.file) {
            page.extend(pending.pop_front().map(|file| ExportRecord::File(Box::new(file))));
        }
        page.push_back(ExportRecord::Version(Box::new(version)));
    }
    if is_complete {
        page.extend(pending.drain(..).map(|file| ExportRecord::File(Box::new(file))));
    }
    page
}
