//! Lists tenants.

use crate::{
    app::{App, Error},
    db::tenant_records,
    domain::{caller::Operator, ids::TenantId, tenant_record::TenantRecord, violations::Violations},
};

/// Tenants of a page when none is asked for, and at most.
const PAGE_SIZE_DEFAULT: i32 = 20;
const PAGE_SIZE_MAX: i32 = 1_000;

/// A page.
#[derive(Debug)]
pub struct Listed {
    /// The tenants, in the order of their ids, which is that of their births.
    pub tenants: Vec<TenantRecord>,
    /// Where to go on; none after the last page.
    pub next: Option<TenantId>,
}

/// Lists tenants behind one, those that were deleted too.
///
/// # Errors
/// `Invalid`.
pub async fn list(
    app: &App,
    _operator: &Operator,
    page_size: i32,
    after: Option<TenantId>,
) -> Result<Listed, Error> {
    let size = match page_size {
        0 => PAGE_SIZE_DEFAULT,
        1.. => page_size.min(PAGE_SIZE_MAX),
        _ => return Err(Violations::one("page_size", "must not be negative; 0 means the default").into()),
    };
    let mut tx = app.db.system_tx().await?;
    // One more than the page tells whether there is another.
    let mut tenants = tenant_records::list(&mut tx, after, i64::from(size) + 1).await?;
    tx.commit().await?;
    let size = usize::try_from(size).unwrap_or_default();
    let is_last = tenants.len() <= size;
    tenants.truncate(size);
    let next = tenants.last().map(|tenant| tenant.id).filter(|_| !is_last);
    Ok(Listed { tenants, next })
}
