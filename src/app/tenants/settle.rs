//! Settles provisional tenants whose first calls have ended without settling them: because an upload had not ended
//! yet, or because a process crashed or lost the database.

use super::first_call::settle_in_tx;
use crate::{
    app::{
        App, Error, RoundReport,
        rounds::{DueItems, ItemFields, ItemOutcome, run_round},
    },
    db::provisional_tenants::{self, ProvisionalTimes, Removal},
    domain::ids::TenantId,
};

/// The times for provisional tenants. A first call that lasts longer than a day is an upload, whose row prevents the
/// removal of its tenant, or a watch, which ends then. The store is swept several times before the row of a removed
/// tenant is deleted.
const TIMES: ProvisionalTimes = ProvisionalTimes { lost_after_hours: 25, kept_days: 90 };

/// Settles one round of provisional tenants.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn settle_first_calls(app: &App) -> Result<RoundReport, Error> {
    run_round(&ProvisionalTenants { app }, &app.rotations.provisional_tenants).await
}

/// The provisional tenants that no first call will settle.
struct ProvisionalTenants<'a> {
    app: &'a App,
}

impl DueItems for ProvisionalTenants<'_> {
    type Item = TenantId;
    type Position = TenantId;

    const ACTION: &'static str = "settle first calls of tenant";
    const PAGE_ITEMS: usize = 100;

    async fn list_page(&self, after: Option<TenantId>, limit: i64) -> Result<Vec<TenantId>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let due = provisional_tenants::list_due(&mut tx, after, TIMES, limit).await?;
        tx.commit().await?;
        Ok(due)
    }

    fn position(item: &TenantId) -> TenantId {
        *item
    }

    fn fields<'a>(&self, item: &'a TenantId) -> ItemFields<'a> {
        ItemFields::new(*item)
    }

    async fn process(&self, item: &TenantId) -> Result<ItemOutcome, Error> {
        let mut tx = self.app.db.system_tx().await?;
        provisional_tenants::forget_lost(&mut tx, *item, TIMES).await?;
        let removal = settle_in_tx(&mut tx, *item).await?;
        tx.commit().await?;
        Ok(ItemOutcome::from_done(matches!(removal, Removal::Removed | Removal::Used)))
    }
}
