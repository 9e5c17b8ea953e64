//! Lists open uploads, a page at a time, in the order in which they were created.

use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Error, pages},
    db::{Viewer, resumable_uploads},
    domain::{
        caller::{Caller, Role},
        ids::UploadId,
        upload::Upload,
    },
};

/// A page.
#[derive(Debug, Clone)]
pub struct ListedUploads {
    /// The uploads.
    pub uploads: Vec<Upload>,
    /// Where to go on; empty after the last page.
    pub next_page_token: String,
}

/// What a token of this list says.
#[derive(Serialize, Deserialize)]
struct After {
    uploads_after: UploadId,
}

/// Open uploads: the caller's own, or for an admin everyone's in the tenant.
///
/// # Errors
/// `Invalid`; `PageTokenInvalid`.
pub async fn list(
    app: &App,
    caller: &Caller,
    page_size: i32,
    page_token: &str,
) -> Result<ListedUploads, Error> {
    let size = pages::size(app, page_size)?;
    let after: Option<After> = pages::open(app, caller, page_token)?;
    let created_by = (caller.role < Role::Admin).then_some(caller.actor.id.as_str());
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    // One more than asked for tells whether there is another page.
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let found = resumable_uploads::list(&mut tx, created_by, after.map(|after| after.uploads_after), limit);
    let found = found.await;
    let mut uploads: Vec<Upload> = tx.finish(found).await?.into_iter().map(|stored| stored.upload).collect();
    let next_page_token = match uploads.len() > size {
        true => {
            uploads.truncate(size);
            let last = uploads.last().map(|last| After { uploads_after: last.id });
            last.map(|after| pages::seal(app, caller, &after)).transpose()?.unwrap_or_default()
        }
        false => String::new(),
    };
    Ok(ListedUploads { uploads, next_page_token })
}
