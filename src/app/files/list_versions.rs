//! Lists the versions of a file, newest first.

use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Error, access::seen, pages},
    db::{TenantTx, Viewer, files, versions},
    domain::{
        caller::Caller,
        file::{File, FileVersion},
        ids::FileId,
    },
};

/// Whose versions to list.
#[derive(Debug, Clone)]
pub struct ListVersionsRequest {
    /// Of which file.
    pub file: FileId,
    /// How many at most; 0 means the default, more than the maximum means the maximum.
    pub page_size: i32,
    /// Where to go on; empty means from the newest.
    pub page_token: String,
}

/// A page of versions.
#[derive(Debug, Clone)]
pub struct ListedVersions {
    /// The versions.
    pub versions: Vec<FileVersion>,
    /// Which of them is the current one.
    pub current: i32,
    /// Where to go on; empty after the last page.
    pub next_page_token: String,
}

/// What a page token holds, before it is sealed. It differs from every other kind of token by its fields.
#[derive(Debug, Serialize, Deserialize)]
struct VersionsToken {
    versions_of: FileId,
    below: i32,
}

/// Lists the versions of a file, also of one in the trash.
///
/// # Errors
/// `Invalid`, `PageTokenInvalid`, `NotFound`.
pub async fn list_versions(
    app: &App,
    caller: &Caller,
    request: ListVersionsRequest,
) -> Result<ListedVersions, Error> {
    let size = pages::size(app, request.page_size)?;
    let below = below(app, caller, &request)?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let read = read(&mut tx, caller, request.file, below, size).await;
    let (file, mut versions) = tx.finish(read).await?;
    let has_more = versions.len() > size;
    versions.truncate(size);
    let next_page_token = match versions.last() {
        Some(last) if has_more => {
            pages::seal(app, caller, &VersionsToken { versions_of: file.id, below: last.version })?
        }
        _ => String::new(),
    };
    Ok(ListedVersions { versions, current: file.version, next_page_token })
}

async fn read(
    tx: &mut TenantTx,
    caller: &Caller,
    id: FileId,
    below: i32,
    size: usize,
) -> Result<(File, Vec<FileVersion>), Error> {
    let file = seen(caller, files::get(tx, id).await?)?;
    // One more than asked for says whether there is another page.
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let versions = versions::list(tx, id, below, limit).await?;
    Ok((file, versions))
}

/// A token opens for the tenant it was sealed for, and counts for the file it came from.
fn below(app: &App, caller: &Caller, request: &ListVersionsRequest) -> Result<i32, Error> {
    let Some(token) = pages::open::<VersionsToken>(app, caller, &request.page_token)? else {
        return Ok(i32::MAX);
    };
    if token.versions_of == request.file { Ok(token.below) } else { Err(Error::PageTokenInvalid) }
}
