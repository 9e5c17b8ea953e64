//! Lists tenants, one page at a time.

use crate::{
    app::{App, Error, pages},
    db::tenant_records,
    domain::{caller::Operator, encoded_size::tenant_bytes_max, ids::TenantId, tenant_record::TenantRecord},
};

/// A page of tenants.
#[derive(Debug)]
pub struct TenantList {
    /// The tenants in the order of their ids, which is the order of their creation.
    pub tenants: Vec<TenantRecord>,
    /// The id after which the next page starts; `None` after the last page.
    pub next: Option<TenantId>,
}

/// Lists tenants after the given id, including deleted ones.
///
/// # Errors
/// Returns `Invalid` if the page size is negative.
pub async fn list_tenants(
    app: &App,
    _operator: &Operator,
    page_size: i32,
    after: Option<TenantId>,
) -> Result<TenantList, Error> {
    let size = pages::resolve_page_size(app, page_size)?;
    let mut tx = app.db.operator_tx().await?;
    // Read one extra row to see whether there is another page.
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let mut tenants = tenant_records::list(&mut tx, after, limit).await?;
    tx.commit().await?;
    let has_more = !pages::cut_page(&mut tenants, size, tenant_bytes_max).is_empty();
    let next = tenants.last().map(|tenant| tenant.id).filter(|_| has_more);
    Ok(TenantList { tenants, next })
}
