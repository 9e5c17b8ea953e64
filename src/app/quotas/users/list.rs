//! Lists the users with limits.

use crate::{
    app::{
        App, Error, Principal, pages,
        quotas::resolve_tenant::{begin_tx, resolve_tenant},
    },
    db::user_quotas,
    domain::{encoded_size::user_quota_bytes_max, ids::TenantId, user_quota::UserQuota},
};

/// A page of quotas, ordered by user id.
#[derive(Debug)]
pub struct UserQuotaPage {
    pub quotas: Vec<UserQuota>,
    /// The token of the next page; empty on the last page.
    pub next_page_token: String,
}

/// Lists the quotas of the users with a limit, of the caller's tenant or of the tenant that an operator names.
///
/// # Errors
/// Returns `NotFound` for another tenant, `Invalid`, or `PageTokenInvalid`.
pub async fn list_user_quotas(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    page_size: i32,
    page_token: &str,
) -> Result<UserQuotaPage, Error> {
    let size = pages::resolve_page_size(app, page_size)?;
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let after: Option<String> = pages::open_token_for(app, &purpose(tenant), page_token)?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    // One row more than the page shows whether there is another page.
    let one_more = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let found = user_quotas::list(&mut tx, &after.unwrap_or_default(), one_more).await;
    let mut quotas = tx.finish(found).await?;
    let has_more = !pages::cut_page(&mut quotas, size, user_quota_bytes_max).is_empty();
    let next_page_token = match quotas.last() {
        Some(last) if has_more => pages::seal_token_for(app, &purpose(tenant), &last.user_id)?,
        _ => String::new(),
    };
    Ok(UserQuotaPage { quotas, next_page_token })
}

fn purpose(tenant: TenantId) -> Vec<u8> {
    [b"user quotas ".as_slice(), tenant.as_uuid().as_bytes()].concat()
}
