//! Reports the usage of a tenant, from counters that commits maintain. Members and managers get the usage of the
//! files that they may see, because the counters of the tenant would show the sizes of hidden files.

use super::resolve_tenant::{begin_tx, resolve_tenant};
use crate::{
    app::{App, Error, Principal},
    db::{
        DbError, TenantTx, Viewer,
        lists::{VisibleUsage, sum_visible_usage},
        quotas, usage_counters,
        usage_measurements::{self, UsageMeasurement},
    },
    domain::{
        caller::{Caller, Role},
        clock::Timestamp,
        ids::TenantId,
        quota::{Quota, QuotaLevel},
    },
};

pub use crate::db::usage_counters::UsageCounter as UsageEntry;

/// The usage of a tenant.
#[derive(Debug, Clone)]
pub struct Usage {
    /// The counters, ordered by category and kind.
    pub counters: Vec<UsageEntry>,
    /// Whether the caller may see more files than were counted.
    pub is_lower_bound: bool,
    /// The quota at the same time, with usage in whole percents if the caller may not see all files.
    pub quota: Quota,
    /// The level of the exact usage of the tenant.
    pub level: QuotaLevel,
    /// The time of the report, by the database's clock.
    pub time: Timestamp,
    /// The last measurement of the parts of the usage. `None` if there is none, or if the caller may not see all files.
    pub measurement: Option<UsageMeasurement>,
}

/// Returns the usage of the caller's tenant, or of the tenant that an operator names.
///
/// # Errors
/// Returns `NotFound` for another tenant, and `Invalid` if an operator names none.
pub async fn get_usage(app: &App, principal: &Principal, tenant: Option<TenantId>) -> Result<Usage, Error> {
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let usage = match principal {
        Principal::Caller(caller) if caller.role < Role::Admin => {
            get_visible_usage(app, &mut tx, &viewer, caller).await
        }
        Principal::Caller(_) | Principal::Operator(_) => get_usage_in_tx(&mut tx).await,
    };
    Ok(tx.finish(usage).await?)
}

async fn get_visible_usage(
    app: &App,
    tx: &mut TenantTx,
    viewer: &Viewer,
    caller: &Caller,
) -> Result<Usage, DbError> {
    let (is_trash_counted, max) =
        (caller.tenant.policy.trash.counts_against_quota, app.limits.lists.count_max as usize);
    let VisibleUsage { counters, is_lower_bound } =
        sum_visible_usage(tx, viewer, is_trash_counted, max).await?;
    let usage = get_usage_in_tx(tx).await?;
    Ok(Usage { counters, is_lower_bound, quota: usage.quota.in_whole_percents(), measurement: None, ..usage })
}

async fn get_usage_in_tx(tx: &mut TenantTx) -> Result<Usage, DbError> {
    let quota = quotas::get(tx).await?;
    Ok(Usage {
        counters: usage_counters::list(tx).await?,
        is_lower_bound: false,
        level: quota.state().level,
        quota,
        time: tx.now().await?,
        measurement: usage_measurements::find(tx).await?,
    })
}
