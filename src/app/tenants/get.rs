//! Reads the record of a tenant.

use crate::{
    app::{App, Error},
    db::tenant_records,
    domain::{caller::Operator, ids::TenantId, tenant_record::TenantRecord},
};

/// The record of a tenant, also of one that was deleted.
///
/// # Errors
/// `NotFound`.
pub async fn get(app: &App, _operator: &Operator, id: TenantId) -> Result<TenantRecord, Error> {
    let mut tx = app.db.system_tx().await?;
    let record = tenant_records::get(&mut tx, id).await?;
    tx.commit().await?;
    record.ok_or(Error::NotFound("tenant"))
}
