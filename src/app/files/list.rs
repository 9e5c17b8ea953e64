//! Lists the files that a caller may see, a page at a time.

use super::fill;
use crate::{
    app::{App, Error},
    db::{
        TenantTx, Viewer,
        lists::{self, PageQuery},
    },
    domain::{
        caller::Caller,
        file::File,
        file_list::{FileFilter, FileOrder, PageToken, Position},
        violations::Violations,
    },
};

pub use crate::db::lists::Total;

/// What to list.
#[derive(Debug, Clone)]
pub struct ListRequest {
    /// How many files at most; 0 means the default, more than the maximum means the maximum.
    pub page_size: i32,
    /// Where to go on; empty means from the start.
    pub page_token: String,
    /// Which files.
    pub filter: FileFilter,
    /// In what order.
    pub order: FileOrder,
    /// Whether to count.
    pub include_total: bool,
    /// Whether tags and attachments are wanted too.
    pub is_full: bool,
}

/// A page.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The files.
    pub files: Vec<File>,
    /// Where to go on; empty after the last page.
    pub next_page_token: String,
    /// How many match, where that was asked.
    pub total: Option<Total>,
}

/// Lists files.
///
/// # Errors
/// `Invalid`; `PageTokenInvalid`.
pub async fn list(app: &App, caller: &Caller, request: ListRequest) -> Result<Listed, Error> {
    let size = page_size(app, request.page_size)?;
    let after = position(app, caller, &request)?;
    let query = PageQuery {
        filter: &request.filter,
        order: request.order,
        after: after.as_ref(),
        size,
        scan_rows_per_row_max: app.limits.lists.scan_rows_per_row_max as usize,
    };
    let viewer = Viewer::caller(caller);
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &viewer).await?;
    let page = read(app, &mut tx, &viewer, &request, &query).await;
    let (files, next, total) = tx.finish(page).await?;
    let next_page_token = match next {
        Some(after) => seal(app, caller, &request, after)?,
        None => String::new(),
    };
    Ok(Listed { files, next_page_token, total })
}

type Read = (Vec<File>, Option<Position>, Option<Total>);

async fn read(
    app: &App,
    tx: &mut TenantTx,
    viewer: &Viewer,
    request: &ListRequest,
    query: &PageQuery<'_>,
) -> Result<Read, Error> {
    let mut page = lists::page(tx, viewer, query).await?;
    if request.is_full {
        fill(tx, &mut page.files).await?;
    }
    let total = if request.include_total {
        Some(lists::count(tx, viewer, &request.filter, app.limits.lists.count_max as usize).await?)
    } else {
        None
    };
    Ok((page.files, page.next, total))
}

/// How many rows a page has at most.
pub(super) fn page_size(app: &App, asked: i32) -> Result<usize, Error> {
    let limits = &app.limits.lists;
    match u32::try_from(asked) {
        Ok(0) => Ok(limits.page_size_default as usize),
        Ok(asked) => Ok(asked.min(limits.page_size_max) as usize),
        Err(_) => Err(Violations::one("page_size", "must not be negative; 0 means the default").into()),
    }
}

/// A token opens for the tenant it was sealed for, and counts for the list it came from.
fn position(app: &App, caller: &Caller, request: &ListRequest) -> Result<Option<Position>, Error> {
    if request.page_token.is_empty() {
        return Ok(None);
    }
    let tenant = caller.tenant_id();
    let opened = app
        .page_tokens
        .open(tenant.as_uuid().as_bytes(), &request.page_token)
        .map_err(|_| Error::PageTokenInvalid)?;
    let token: PageToken = serde_json::from_slice(&opened).map_err(|_| Error::PageTokenInvalid)?;
    let is_of_this_list = token.tenant == tenant
        && token.order == request.order
        && token.filter == request.filter.fingerprint();
    if is_of_this_list { Ok(Some(token.after)) } else { Err(Error::PageTokenInvalid) }
}

fn seal(app: &App, caller: &Caller, request: &ListRequest, after: Position) -> Result<String, Error> {
    let tenant = caller.tenant_id();
    let token = PageToken { tenant, order: request.order, filter: request.filter.fingerprint(), after };
    let token = serde_json::to_vec(&token).map_err(Error::internal)?;
    app.page_tokens.seal(tenant.as_uuid().as_bytes(), &token).map_err(Error::internal)
}
