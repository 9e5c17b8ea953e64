//! Lists tenants, one page at a time.

use crate::{
    app::{App, Error},
    db::tenant_records,
    domain::{caller::Operator, ids::TenantId, tenant_record::TenantRecord, violations::Violations},
};

/// The default and maximum page size.
const PAGE_SIZE_DEFAULT: i32 = 20;
const PAGE_SIZE_MAX: i32 = 1_000;

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
    let size = match page_size {
        0 => PAGE_SIZE_DEFAULT,
        1.. => page_size.min(PAGE_SIZE_MAX),
        _ => return Err(Violations::one("page_size", "must not be negative; 0 means the default").into()),
    };
    let mut tx = app.db.system_tx().await?;
    // Read one extra row to see whether there is another page.
    let mut tenants = tenant_records::list(&mut tx, after, i64::from(size) + 1).await?;
    tx.commit().await?;
    let size = usize::try_from(size).unwrap_or_default();
    let is_last = tenants.len() <= size;
    tenants.truncate(size);
    let next = tenants.last().map(|tenant| tenant.id).filter(|_| !is_last);
    Ok(TenantList { tenants, next })
}
