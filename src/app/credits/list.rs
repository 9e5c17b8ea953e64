//! Lists the entries of a ledger.

use super::resolve_owner;
use crate::{
    app::{
        App, Error, Principal, pages,
        quotas::resolve_tenant::{begin_tx, resolve_tenant},
    },
    db::credits,
    domain::{credits::CreditEntry, encoded_size::credit_entry_bytes_max, ids::TenantId},
};

/// A page of entries, the newest first.
#[derive(Debug)]
pub struct CreditEntryPage {
    pub entries: Vec<CreditEntry>,
    /// The token of the next page. Empty on the last page.
    pub next_page_token: String,
}

/// Lists the entries of a user, the newest first; by default those of the caller.
///
/// # Errors
/// Returns `NotFound` for another tenant, `NotAllowed` if the caller may not read the credits of this user, `Invalid`,
/// or `PageTokenInvalid`.
pub async fn list_credit_entries(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    user_id: Option<String>,
    page_size: i32,
    page_token: &str,
) -> Result<CreditEntryPage, Error> {
    let size = pages::resolve_page_size(app, page_size)?;
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let user_id = resolve_owner(app, principal, user_id).await?;
    let purpose = sealing_purpose(tenant, &user_id);
    let before = match page_token {
        "" => None,
        token => Some(open_page_token(app, &purpose, token)?),
    };
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    // One row more than the page shows whether there is another page.
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let found = credits::list_entries(&mut tx, &user_id, before, limit).await;
    let mut entries = tx.finish(found).await?;
    let has_more = !pages::cut_page(&mut entries, size, credit_entry_bytes_max).is_empty();
    let next_page_token = match entries.last() {
        Some(last) if has_more => {
            let position = last.number.to_be_bytes();
            app.page_tokens.seal(&purpose, &position).map_err(Error::internal)?
        }
        _ => String::new(),
    };
    Ok(CreditEntryPage { entries, next_page_token })
}

/// Returns the sealing purpose of a page token: the ledger of one user.
fn sealing_purpose(tenant: TenantId, user_id: &str) -> Vec<u8> {
    [b"credit entries ".as_slice(), tenant.as_uuid().as_bytes(), user_id.as_bytes()].concat()
}

fn open_page_token(app: &App, purpose: &[u8], token: &str) -> Result<i64, Error> {
    let opened = app.page_tokens.open(purpose, token).map_err(|_| Error::PageTokenInvalid)?;
    opened.try_into().map(i64::from_be_bytes).map_err(|_| Error::PageTokenInvalid)
}
