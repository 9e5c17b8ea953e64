//! Returns one share, or lists them.

use serde::{Deserialize, Serialize};

use super::{can_manage, is_recipient, load_recipients};
use crate::{
    app::{App, Error, Resource, access, pages},
    db::{
        TenantTx, Viewer, files,
        shares::{self, SharesOf, StoredShare},
    },
    domain::{
        caller::Caller,
        encoded_size::share_bytes_max,
        ids::{FileId, ShareId},
        share::Share,
    },
};

/// Returns a share. Its creator, the owner of the file, admins and the recipients see it.
///
/// # Errors
/// Returns `NotFound`.
pub async fn get_share(app: &App, caller: &Caller, id: ShareId) -> Result<Share, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let found = get_in_tx(&mut tx, caller, id).await;
    tx.finish(found).await
}

async fn get_in_tx(tx: &mut TenantTx, caller: &Caller, id: ShareId) -> Result<Share, Error> {
    let missing = || Error::NotFound(Resource::Share);
    let mut share = shares::get(tx, id).await?.ok_or_else(missing)?.share;
    let file = files::get(tx, share.file).await?.filter(|file| access::can_see(caller, file));
    let file = file.ok_or_else(missing)?.file;
    if can_manage(caller, &file, &share) {
        load_recipients(tx, std::slice::from_mut(&mut share)).await?;
        return Ok(share);
    }
    // Recipients do not learn who the others are.
    if is_recipient(tx, caller, &share).await? { Ok(share) } else { Err(missing()) }
}

/// Which shares a list contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShareList {
    /// The shares of a file: all for its owner and admins, and for others those that they created.
    File(FileId),
    /// The shares that the caller created.
    CreatedByMe,
    /// The shares of which the caller is a recipient.
    SharedWithMe,
}

/// A request for one page of shares.
#[derive(Debug)]
pub struct ListSharesRequest {
    pub list: ShareList,
    /// Whether to include revoked and expired shares.
    pub show_closed: bool,
    pub page_size: i32,
    pub page_token: String,
}

/// A page of shares.
#[derive(Debug)]
pub struct SharePage {
    /// The shares, the oldest first.
    pub shares: Vec<Share>,
    /// The token of the next page. Empty on the last page.
    pub next_page_token: String,
}

/// The content of a page token of this list.
#[derive(Serialize, Deserialize)]
struct ShareCursor {
    shares_of: ShareList,
    show_closed: bool,
    shares_after: ShareId,
}

/// Lists shares, the oldest first, one page at a time.
///
/// # Errors
/// Returns `NotFound`, `Invalid` or `PageTokenInvalid`.
pub async fn list_shares(app: &App, caller: &Caller, request: ListSharesRequest) -> Result<SharePage, Error> {
    let ListSharesRequest { list, show_closed, page_size, page_token } = request;
    let size = pages::resolve_page_size(app, page_size)?;
    let cursor: Option<ShareCursor> = pages::open_token(app, caller, &page_token)?;
    if cursor.as_ref().is_some_and(|cursor| cursor.shares_of != list || cursor.show_closed != show_closed) {
        return Err(Error::PageTokenInvalid);
    }
    let after = cursor.map(|cursor| cursor.shares_after);
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    // One row more than the page shows whether there is another page.
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let found = list_in_tx(&mut tx, caller, list, show_closed, after, limit).await;
    let mut shares = tx.finish(found).await?;
    let has_more = !pages::cut_page(&mut shares, size, share_bytes_max).is_empty();
    let next_page_token = match shares.last() {
        Some(last) if has_more => {
            let cursor = ShareCursor { shares_of: list, show_closed, shares_after: last.id };
            pages::seal_token(app, caller, &cursor)?
        }
        _ => String::new(),
    };
    Ok(SharePage { shares, next_page_token })
}

async fn list_in_tx(
    tx: &mut TenantTx,
    caller: &Caller,
    list: ShareList,
    show_closed: bool,
    after: Option<ShareId>,
    limit: i64,
) -> Result<Vec<Share>, Error> {
    let (creator, open_only) = (caller.actor.id.clone(), !show_closed);
    let of = match list {
        ShareList::SharedWithMe => {
            let found = shares::list_of_recipient(tx, &caller.principals(), after, limit).await?;
            return Ok(found.into_iter().map(|stored| stored.share).collect());
        }
        ShareList::CreatedByMe => SharesOf::Creator(creator),
        ShareList::File(id) => {
            let file = access::require_visible(caller, files::get(tx, id).await?)?;
            match access::is_owner_or_admin(caller, &file) {
                true => SharesOf::File(id),
                false => SharesOf::FileAndCreator(id, creator),
            }
        }
    };
    let found: Vec<StoredShare> = shares::list(tx, &of, open_only, after, limit).await?;
    let mut shares: Vec<Share> = found.into_iter().map(|stored| stored.share).collect();
    load_recipients(tx, &mut shares).await?;
    Ok(shares)
}
