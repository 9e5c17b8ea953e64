//! Charges the owners of a tenant's files for a day of storage.

use crate::{
    app::{App, Error},
    db::{
        Viewer,
        storage_charges::{self, DueCharges, OwnerDue},
    },
    domain::{ids::TenantId, metering::storage_credits},
};

/// The number of owners that one transaction charges. It holds their balances.
const OWNERS_PER_TX: usize = 500;

/// Returns the charges of a tenant that are due today, or `None` if there are none.
///
/// # Errors
/// Returns `DatabaseUnavailable`.
pub(in crate::app) async fn find_due_charges(
    app: &App,
    tenant: TenantId,
) -> Result<Option<DueCharges>, Error> {
    if !app.owners.may_change_records() {
        return Ok(None);
    }
    let mut tx = app.db.system_tx().await?;
    let due = storage_charges::find_due(&mut tx, tenant).await?;
    tx.commit().await?;
    Ok(due)
}

/// Charges owners for their stored bytes. An interruption loses nothing: the next measurement charges the owners
/// that were not charged for the day.
///
/// # Errors
/// Returns `DatabaseUnavailable`.
pub(in crate::app) async fn charge_owners(
    app: &App,
    tenant: TenantId,
    due: DueCharges,
    bytes_of_owners: impl Iterator<Item = (&str, i64)>,
) -> Result<(), Error> {
    let mut dues: Vec<OwnerDue> = bytes_of_owners
        .map(|(user_id, bytes)| OwnerDue {
            user_id: user_id.to_owned(),
            due_credits: storage_credits(bytes, due.gib_day_credits),
        })
        .filter(|owner| owner.due_credits > 0)
        .collect();
    dues.sort_unstable_by(|a, b| a.user_id.cmp(&b.user_id));
    for batch in dues.chunks(OWNERS_PER_TX) {
        let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
        let inserted = storage_charges::insert(&mut tx, due.day, batch).await;
        tx.finish(inserted).await?;
    }
    Ok(())
}
