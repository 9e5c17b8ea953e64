//! Lists the access log of a share or of a file.

use serde::{Deserialize, Serialize};

use super::{App, Error, Resource, access, audit, error::Denial, pages};
use crate::{
    db::{
        TenantTx, Viewer,
        access_log::{self, AccessRange},
        audit_entries::AuditAction,
        files, shares,
    },
    domain::{
        access_log::{AccessAction, AccessPosition, AccessSubject, StoredAccess},
        caller::Caller,
        clock::{TIMESTAMP_MAX, Timestamp},
    },
};

/// The number of entries that are read at once.
const BATCH: usize = 1_000;
/// The maximum number of entries that a request reads. It bounds the work for a filter that matches few of them.
const SCANNED_MAX: usize = 10_000;

/// Selects entries of the log. An entry must match all fields that are set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessFilter {
    pub start_time: Option<Timestamp>,
    /// The time before which the attempts were made.
    pub end_time: Option<Timestamp>,
    pub action: Option<AccessAction>,
    pub is_granted: Option<bool>,
}

/// A request for one page of entries.
#[derive(Debug)]
pub struct ListAccessRequest {
    pub of: AccessSubject,
    pub filter: AccessFilter,
    pub page_size: i32,
    pub page_token: String,
}

/// A page of entries.
#[derive(Debug, Default)]
pub struct AccessPage {
    /// The entries, the newest first.
    pub entries: Vec<StoredAccess>,
    /// The token of the next page; empty on the last page.
    pub next_page_token: String,
}

/// The content of a page token of this list.
#[derive(Serialize, Deserialize)]
struct AccessCursor {
    access_to: AccessSubject,
    filter: AccessFilter,
    access_before: AccessPosition,
}

/// Lists entries of the access log, the newest first, one page at a time. The log of a file is for its owner and admins,
/// that of a share also for its creator.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed`, `Invalid` or `PageTokenInvalid`.
pub async fn list_access(
    app: &App,
    caller: &Caller,
    request: ListAccessRequest,
) -> Result<AccessPage, Error> {
    let size = pages::resolve_page_size(app, request.page_size)?;
    let access_to = request.of;
    let cursor: Option<AccessCursor> = pages::open_token(app, caller, &request.page_token)?;
    if cursor.as_ref().is_some_and(|cursor| cursor.access_to != access_to || cursor.filter != request.filter)
    {
        return Err(Error::PageTokenInvalid);
    }
    let first = AccessPosition { create_time: request.filter.end_time.unwrap_or(TIMESTAMP_MAX), n: i64::MIN };
    let before = cursor.map_or(first, |cursor| cursor.access_before);
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let listed = list_in_tx(&mut tx, caller, &request, before, size).await;
    let (entries, next) = match tx.finish(listed).await {
        Err(error @ Error::NotAllowed(_)) => {
            let file = match request.of {
                AccessSubject::File(file) => Some(file),
                AccessSubject::Share(_) => None,
            };
            return Err(audit::record_denial(app, caller, AuditAction::AccessLogList, file, error).await);
        }
        listed => listed?,
    };
    let next_page_token = match next {
        Some(access_before) => {
            let cursor = AccessCursor { access_to, filter: request.filter, access_before };
            pages::seal_token(app, caller, &cursor)?
        }
        None => String::new(),
    };
    Ok(AccessPage { entries, next_page_token })
}

/// Returns the entries of a page, and the position after which the next page begins, if there is one.
async fn list_in_tx(
    tx: &mut TenantTx,
    caller: &Caller,
    request: &ListAccessRequest,
    before: AccessPosition,
    size: usize,
) -> Result<(Vec<StoredAccess>, Option<AccessPosition>), Error> {
    check_may_list(tx, caller, request.of).await?;
    let start_time = request.filter.start_time.unwrap_or_default();
    let (mut entries, mut end, mut bytes, mut scanned) = (Vec::new(), before, 0, 0);
    loop {
        let range = AccessRange { start_time, end };
        let batch = access_log::list(tx, request.of, range, BATCH as i64).await?;
        let is_last = batch.len() < BATCH;
        scanned += batch.len();
        for stored in batch {
            if request.filter.matches(&stored) {
                bytes += stored.bytes_max();
                if !entries.is_empty() && bytes > pages::RECORDS_BYTES_MAX {
                    return Ok((entries, Some(end)));
                }
                end = stored.position;
                entries.push(stored);
                if entries.len() == size {
                    return Ok((entries, Some(end)));
                }
            } else {
                end = stored.position;
            }
        }
        if is_last {
            return Ok((entries, None));
        }
        if scanned >= SCANNED_MAX {
            return Ok((entries, Some(end)));
        }
    }
}

async fn check_may_list(tx: &mut TenantTx, caller: &Caller, of: AccessSubject) -> Result<(), Error> {
    match of {
        AccessSubject::File(id) => {
            let file = access::require_visible(caller, files::get(tx, id).await?)?;
            match access::is_owner_or_admin(caller, &file) {
                true => Ok(()),
                false => Err(Error::NotAllowed(Denial::OwnerAndAdminsOnly)),
            }
        }
        AccessSubject::Share(id) => {
            let missing = || Error::NotFound(Resource::Share);
            let share = shares::get(tx, id).await?.ok_or_else(missing)?.share;
            let file = files::get(tx, share.file).await?.filter(|file| access::can_see(caller, file));
            let file = file.ok_or_else(missing)?.file;
            let is_manager = access::is_owner_or_admin(caller, &file) || share.created_by == caller.actor.id;
            if is_manager { Ok(()) } else { Err(missing()) }
        }
    }
}

impl AccessFilter {
    fn matches(&self, stored: &StoredAccess) -> bool {
        let is_granted = stored.entry.denial_reason.is_none();
        self.action.is_none_or(|action| action == stored.entry.action)
            && self.is_granted.is_none_or(|wanted| wanted == is_granted)
    }
}
