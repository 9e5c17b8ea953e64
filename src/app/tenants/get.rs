//! Reads the record of a tenant.

use crate::{
    app::{App, Error, Resource},
    db::tenant_records,
    domain::{caller::Operator, ids::TenantId, tenant_record::TenantRecord},
};

/// Returns the record of a tenant, which may be deleted.
///
/// # Errors
/// Returns `NotFound` if there is none.
pub async fn get_tenant(app: &App, _operator: &Operator, id: TenantId) -> Result<TenantRecord, Error> {
    let mut tx = app.db.operator_tx().await?;
    let record = tenant_records::get(&mut tx, id).await?;
    tx.commit().await?;
    record.ok_or(Error::NotFound(Resource::Tenant))
}
