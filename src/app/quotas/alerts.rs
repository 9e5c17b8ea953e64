//! Lists the alerts of a quota. The database raises them; see `docs/decisions/0013-alerts-by-level-crossing.md`.

use super::resolve_tenant::{begin_tx, resolve_tenant};
use crate::{
    app::{App, Error, Principal, access, pages},
    db::quota_alerts,
    domain::{ids::TenantId, quota_alert::QuotaAlert},
};

/// A request to list alerts.
#[derive(Debug, Clone, Default)]
pub struct AlertQuery {
    /// The tenant; `None` means that of the caller.
    pub tenant: Option<TenantId>,
    pub page_size: i32,
    pub page_token: String,
}

/// A page of alerts.
#[derive(Debug)]
pub struct AlertPage {
    /// The alerts, the newest first.
    pub alerts: Vec<QuotaAlert>,
    /// The token of the next page. Empty on the last page.
    pub next_page_token: String,
}

/// Lists the alerts of the caller's tenant, or of the tenant that an operator names.
///
/// # Errors
/// Returns `NotAllowed` for callers who are not admins, `Invalid`, `PageTokenInvalid`, or `NotFound` for another
/// tenant.
pub async fn list_quota_alerts(
    app: &App,
    principal: &Principal,
    query: AlertQuery,
) -> Result<AlertPage, Error> {
    if let Principal::Caller(caller) = principal {
        access::check_is_admin(caller)?;
    }
    let (tenant, viewer) = resolve_tenant(app, principal, query.tenant).await?;
    let size = pages::resolve_page_size(app, query.page_size)?;
    let before = match query.page_token.as_str() {
        "" => None,
        token => Some(open_page_token(app, tenant, token)?),
    };
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    // One row more than the page shows whether there is another page.
    let listed = quota_alerts::list(&mut tx, before, i64::try_from(size + 1).unwrap_or(i64::MAX)).await;
    let mut alerts = tx.finish(listed).await?;
    let has_more = alerts.len() > size;
    alerts.truncate(size);
    let next_page_token = match alerts.last().filter(|_| has_more) {
        Some(last) => app
            .page_tokens
            .seal(&sealing_purpose(tenant), &last.number.to_be_bytes())
            .map_err(Error::internal)?,
        None => String::new(),
    };
    Ok(AlertPage { alerts, next_page_token })
}

fn sealing_purpose(tenant: TenantId) -> Vec<u8> {
    [b"quota alerts ".as_slice(), tenant.as_uuid().as_bytes()].concat()
}

fn open_page_token(app: &App, tenant: TenantId, token: &str) -> Result<i64, Error> {
    let opened =
        app.page_tokens.open(&sealing_purpose(tenant), token).map_err(|_| Error::PageTokenInvalid)?;
    opened.try_into().map(i64::from_be_bytes).map_err(|_| Error::PageTokenInvalid)
}
