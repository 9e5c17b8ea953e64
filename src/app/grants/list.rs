//! Lists the grants of a file.

use serde::{Deserialize, Serialize};

use super::Grant;
use crate::{
    app::{
        App, Error,
        access::{is_owner_or_admin, require_visible},
        pages,
    },
    db::{
        TenantTx, Viewer,
        file_grants::{self, GrantsOf},
        files,
    },
    domain::{
        caller::Caller,
        ids::{FileId, GrantId},
    },
};

/// A request to list the grants of a file.
#[derive(Debug, Clone)]
pub struct ListGrantsRequest {
    pub file: FileId,
    /// The maximum number of grants to return; 0 means the default, and larger values are capped at the maximum.
    /// The longest grants of the largest page are below the limit of a response.
    pub page_size: i32,
    /// The `next_page_token` of the previous page. Empty for the first page.
    pub page_token: String,
}

/// A page of grants.
#[derive(Debug, Clone)]
pub struct GrantPage {
    /// The grants, the oldest first.
    pub grants: Vec<Grant>,
    /// The token of the next page; empty on the last page.
    pub next_page_token: String,
}

/// The content of a page token of this list.
#[derive(Debug, Serialize, Deserialize)]
struct GrantsToken {
    grants_of: FileId,
    after: GrantId,
}

/// Lists the grants of a file that have not expired. The owner and admins see all; others see those that they gave and
/// those that apply to them.
///
/// # Errors
/// Returns `Invalid`, `PageTokenInvalid` or `NotFound`.
pub async fn list_grants(app: &App, caller: &Caller, request: ListGrantsRequest) -> Result<GrantPage, Error> {
    let size = pages::resolve_page_size(app, request.page_size)?;
    let after = match pages::open_token::<GrantsToken>(app, caller, &request.page_token)? {
        Some(token) if token.grants_of != request.file => return Err(Error::PageTokenInvalid),
        token => token.map(|token| token.after),
    };
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let found = list_in_tx(&mut tx, caller, request.file, after, size).await;
    let mut grants = tx.finish(found).await?;
    let has_more = grants.len() > size;
    grants.truncate(size);
    let next_page_token = match grants.last() {
        Some(last) if has_more => {
            pages::seal_token(app, caller, &GrantsToken { grants_of: request.file, after: last.id })?
        }
        _ => String::new(),
    };
    Ok(GrantPage { grants, next_page_token })
}

async fn list_in_tx(
    tx: &mut TenantTx,
    caller: &Caller,
    id: FileId,
    after: Option<GrantId>,
    size: usize,
) -> Result<Vec<Grant>, Error> {
    let file = require_visible(caller, files::get(tx, id).await?)?;
    let of = match is_owner_or_admin(caller, &file) {
        true => GrantsOf::File,
        false => GrantsOf::Caller { id: caller.actor.id.clone(), principals: caller.principals() },
    };
    // One row more than the page shows whether there is another page.
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    Ok(file_grants::list(tx, id, &of, after, limit).await?)
}
