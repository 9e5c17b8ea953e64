//! Lists the users and services whose files take the most bytes.

use super::resolve_tenant::{begin_tx, resolve_tenant};
use crate::{
    app::{App, Error, Principal, pages},
    db::{
        DbError, TenantTx,
        usage_measurements::{self, OwnerCursor, OwnerUsage, UsageMeasurement},
    },
    domain::ids::TenantId,
};

/// A page of owners, those with the most bytes first.
#[derive(Debug)]
pub struct OwnerPage {
    pub owners: Vec<OwnerUsage>,
    /// The token of the next page; empty on the last page.
    pub next_page_token: String,
    /// The last measurement, unless the tenant was not measured yet.
    pub measurement: Option<UsageMeasurement>,
}

/// Lists the largest owners of the caller's tenant, or of the tenant that an operator names, as of the last measurement.
///
/// # Errors
/// Returns `NotFound` for another tenant, `Invalid`, or `PageTokenInvalid`.
pub async fn list_top_owners(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    page_size: i32,
    page_token: &str,
) -> Result<OwnerPage, Error> {
    let size = pages::resolve_page_size(app, page_size)?;
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let after = pages::open_token_for(app, &purpose(tenant), page_token)?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let read = read_page(&mut tx, after, size).await;
    let (mut owners, measurement) = tx.finish(read).await?;
    let has_more = owners.len() > size;
    owners.truncate(size);
    let next_page_token = match owners.last().filter(|_| has_more) {
        Some(last) => {
            let position = OwnerCursor { total_bytes: last.total_bytes, owner_id: last.owner_id.clone() };
            pages::seal_token_for(app, &purpose(tenant), &position)?
        }
        None => String::new(),
    };
    Ok(OwnerPage { owners, next_page_token, measurement })
}

async fn read_page(
    tx: &mut TenantTx,
    after: Option<OwnerCursor>,
    size: usize,
) -> Result<(Vec<OwnerUsage>, Option<UsageMeasurement>), DbError> {
    let one_more = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let owners = usage_measurements::list_owners(tx, after, one_more).await?;
    Ok((owners, usage_measurements::find(tx).await?))
}

fn purpose(tenant: TenantId) -> Vec<u8> {
    [b"owners ".as_slice(), tenant.as_uuid().as_bytes()].concat()
}
