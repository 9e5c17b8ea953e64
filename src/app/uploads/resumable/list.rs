//! Lists open uploads, a page at a time, in the order in which they were created.

use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Error, pages},
    db::{Viewer, resumable_uploads},
    domain::{
        caller::{Caller, Role},
        encoded_size::upload_bytes_max,
        ids::UploadId,
        upload::Upload,
    },
};

/// A page of open uploads.
#[derive(Debug, Clone)]
pub struct UploadPage {
    pub uploads: Vec<Upload>,
    /// The token of the next page; empty on the last page.
    pub next_page_token: String,
}

/// The content of a page token.
#[derive(Serialize, Deserialize)]
struct PageToken {
    uploads_after: UploadId,
}

/// Lists open uploads: the caller's own, or those of the whole tenant for an admin.
///
/// # Errors
/// Returns `Invalid` or `PageTokenInvalid`.
pub async fn list_uploads(
    app: &App,
    caller: &Caller,
    page_size: i32,
    page_token: &str,
) -> Result<UploadPage, Error> {
    let size = pages::resolve_page_size(app, page_size)?;
    let after: Option<PageToken> = pages::open_token(app, caller, page_token)?;
    let created_by = (caller.role < Role::Admin).then_some(caller.actor.id.as_str());
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    // Read one more row than requested to find out whether there is another page.
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let found = resumable_uploads::list(&mut tx, created_by, after.map(|after| after.uploads_after), limit);
    let found = found.await;
    let mut uploads: Vec<Upload> = tx.finish(found).await?;
    let has_more = !pages::cut_page(&mut uploads, size, upload_bytes_max).is_empty();
    let next_page_token = match uploads.last() {
        Some(last) if has_more => pages::seal_token(app, caller, &PageToken { uploads_after: last.id })?,
        _ => String::new(),
    };
    Ok(UploadPage { uploads, next_page_token })
}
