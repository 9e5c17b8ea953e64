//! Lists the versions of a file, newest first.

use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Error, access::require_visible, pages},
    db::{TenantTx, Viewer, files, versions},
    domain::{
        caller::Caller,
        encoded_size::version_bytes_max,
        file::{File, FileVersion},
        ids::FileId,
    },
};

/// A request to list the versions of a file.
#[derive(Debug, Clone)]
pub struct ListVersionsRequest {
    pub file: FileId,
    /// The maximum number of versions to return; 0 means the default, and larger values are capped at the
    /// maximum.
    pub page_size: i32,
    /// The `next_page_token` of the previous page. Empty for the first page, which has the newest versions.
    pub page_token: String,
}

/// A page of versions.
#[derive(Debug, Clone)]
pub struct FileVersionList {
    pub versions: Vec<FileVersion>,
    pub current_version: i32,
    /// The token of the next page; empty after the last page.
    pub next_page_token: String,
}

/// The content of a page token. Its field names differ from those of other page tokens, so a token of
/// another list does not parse.
#[derive(Debug, Serialize, Deserialize)]
struct VersionsToken {
    versions_of: FileId,
    below: i32,
}

/// Lists the versions of a file, which may be in the trash.
///
/// # Errors
/// Returns `Invalid`, `PageTokenInvalid` or `NotFound`.
pub async fn list_file_versions(
    app: &App,
    caller: &Caller,
    request: ListVersionsRequest,
) -> Result<FileVersionList, Error> {
    let size = pages::resolve_page_size(app, request.page_size)?;
    let below = open_page_token(app, caller, &request)?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let page = list_in_tx(&mut tx, caller, request.file, below, size).await;
    let (file, mut versions) = tx.finish(page).await?;
    let has_more = !pages::cut_page(&mut versions, size, version_bytes_max).is_empty();
    let next_page_token = match versions.last() {
        Some(last) if has_more => {
            pages::seal_token(app, caller, &VersionsToken { versions_of: file.id, below: last.version })?
        }
        _ => String::new(),
    };
    Ok(FileVersionList { versions, current_version: file.version, next_page_token })
}

async fn list_in_tx(
    tx: &mut TenantTx,
    caller: &Caller,
    id: FileId,
    below: i32,
    size: usize,
) -> Result<(File, Vec<FileVersion>), Error> {
    let file = require_visible(caller, files::get(tx, id).await?)?;
    // Read one extra row to see whether there is another page.
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let versions = versions::list(tx, id, below, limit).await?;
    Ok((file, versions))
}

/// Opens the page token and returns the version number below which the page starts. The token is valid only
/// for its tenant and file.
fn open_page_token(app: &App, caller: &Caller, request: &ListVersionsRequest) -> Result<i32, Error> {
    let Some(token) = pages::open_token::<VersionsToken>(app, caller, &request.page_token)? else {
        return Ok(i32::MAX);
    };
    if token.versions_of == request.file { Ok(token.below) } else { Err(Error::PageTokenInvalid) }
}
