//! Lists the files that a caller may see, one page at a time.

use super::{
    load_details,
    read_records::{Records, View, read_records},
};
use crate::{
    app::{App, Error, pages},
    db::{
        TenantTx, Viewer,
        lists::{self, Page, PageQuery, Total},
    },
    domain::{
        caller::Caller,
        file::File,
        file_list::{FileFilter, FileOrder, PagePosition, PageToken},
        ids::FileId,
    },
};

/// A request to list files.
#[derive(Debug, Clone)]
pub struct ListRequest {
    /// The maximum number of files to return; 0 means the default, and larger values are capped at the
    /// maximum.
    pub page_size: i32,
    /// The token of the previous page; empty means the first page.
    pub page_token: String,
    pub filter: FileFilter,
    pub order: FileOrder,
    /// Whether to count the matching files.
    pub include_total: bool,
    /// Whether to include tags, attachments and download counts.
    pub is_full: bool,
}

/// A page of files.
#[derive(Debug, Clone)]
pub struct FileList {
    pub files: Vec<File>,
    /// The token of the next page; empty after the last page.
    pub next_page_token: String,
    /// The number of matching files, if requested.
    pub total: Option<Total>,
}

/// Lists the files that match a filter.
///
/// # Errors
/// Returns `Invalid` or `PageTokenInvalid`.
pub async fn list_files(app: &App, caller: &Caller, request: ListRequest) -> Result<FileList, Error> {
    let size = pages::resolve_page_size(app, request.page_size)?;
    let after = open_position(app, caller, &request)?;
    let query = PageQuery {
        filter: &request.filter,
        order: request.order,
        after: after.as_ref(),
        size,
        scan_rows_per_row_max: app.limits.lists.scan_rows_per_row_max as usize,
    };
    let viewer = Viewer::from_caller(caller);
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &viewer).await?;
    let page = list_in_tx(app, &mut tx, &viewer, &request, &query).await;
    let (files, next, total) = tx.finish(page).await?;
    let next_page_token = match next {
        Some(after) => seal_position(app, caller, &request, after)?,
        None => String::new(),
    };
    Ok(FileList { files, next_page_token, total })
}

type FilePage = (Vec<File>, Option<PagePosition>, Option<Total>);

async fn list_in_tx(
    app: &App,
    tx: &mut TenantTx,
    viewer: &Viewer,
    request: &ListRequest,
    query: &PageQuery<'_>,
) -> Result<FilePage, Error> {
    let (files, next) = read_files(tx, viewer, request, query).await?;
    let total = if request.include_total {
        Some(lists::count_files(tx, viewer, &request.filter, app.limits.lists.count_max as usize).await?)
    } else {
        None
    };
    Ok((files, next, total))
}

/// Reads the files of a page, and the position of the next page. If more rows may be looked at than are
/// returned, or more records than one batch are requested, reads the keys first.
async fn read_files(
    tx: &mut TenantTx,
    viewer: &Viewer,
    request: &ListRequest,
    query: &PageQuery<'_>,
) -> Result<(Vec<File>, Option<PagePosition>), Error> {
    let view = View::new(request.is_full);
    if query.looks_at_more_rows(viewer) || query.size > view.batch_max() {
        let keys = lists::read_keys(tx, viewer, query).await?;
        let ids: Vec<FileId> = keys.files.iter().map(|file| file.id).collect();
        let Records { files, unread } = read_records(tx, &ids, view).await?;
        let next = if unread.is_empty() { keys.next } else { position_of_last(&files, keys.files) };
        return Ok((files, next));
    }
    let Page { mut files, positions, mut next } = lists::read_page(tx, viewer, query, view.columns()).await?;
    if request.is_full {
        load_details(tx, &mut files).await?;
    }
    if !pages::cut_page(&mut files, query.size, view.weight()).is_empty() {
        next = position_of_last(&files, positions);
    }
    Ok((files, next))
}

/// Returns the position of the last of the files, which are some of those with these positions.
fn position_of_last(files: &[File], positions: Vec<PagePosition>) -> Option<PagePosition> {
    let last = files.last()?;
    positions.into_iter().find(|position| position.id == last.id)
}

/// Opens the page token. It is valid only for the tenant, filter and order of its list.
fn open_position(app: &App, caller: &Caller, request: &ListRequest) -> Result<Option<PagePosition>, Error> {
    let Some(token) = pages::open_token::<PageToken>(app, caller, &request.page_token)? else {
        return Ok(None);
    };
    let is_of_this_list = token.tenant == caller.tenant_id()
        && token.order == request.order
        && token.filter == request.filter.fingerprint();
    if is_of_this_list { Ok(Some(token.after)) } else { Err(Error::PageTokenInvalid) }
}

fn seal_position(
    app: &App,
    caller: &Caller,
    request: &ListRequest,
    after: PagePosition,
) -> Result<String, Error> {
    let tenant = caller.tenant_id();
    let token = PageToken { tenant, order: request.order, filter: request.filter.fingerprint(), after };
    pages::seal_token(app, caller, &token)
}
