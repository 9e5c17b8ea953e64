//! Reports what is stored, from counters that the commits keep.

use super::subject::subject;
use crate::{
    app::{App, Error, Principal},
    db::{DbError, TenantTx, quotas, usage_counters},
    domain::{clock::Timestamp, ids::TenantId, quota::Quota},
};

pub use crate::db::usage_counters::UsageCounter as UsageEntry;

/// What a tenant stores.
#[derive(Debug, Clone)]
pub struct Usage {
    /// Per category and kind, in that order.
    pub counters: Vec<UsageEntry>,
    /// The quota at the same moment.
    pub quota: Quota,
    /// That moment, by the database's clock.
    pub time: Timestamp,
}

/// The usage of the caller's tenant, or of the one that an operator names.
///
/// # Errors
/// `NotFound` for another tenant; `Invalid` for an operator who names none.
pub async fn usage(app: &App, principal: &Principal, tenant: Option<TenantId>) -> Result<Usage, Error> {
    let (tenant, viewer) = subject(app, principal, tenant).await?;
    let mut tx = app.db.tenant_tx(tenant, &viewer).await?;
    let usage = read(&mut tx).await;
    Ok(tx.finish(usage).await?)
}

async fn read(tx: &mut TenantTx) -> Result<Usage, DbError> {
    Ok(Usage {
        counters: usage_counters::list(tx).await?,
        quota: quotas::get(tx).await?,
        time: tx.now().await?,
    })
}
