//! Deletes expired grants. They ended at their expiry: no access check waits for this.

use super::{begin_change, record_revocation};
use crate::{
    app::{
        App, Error, RoundReport,
        rounds::{DueItems, ItemFields, ItemOutcome, run_round},
        tenants::system_caller,
    },
    db::{
        Viewer,
        file_grants::{self, ExpiredGrants},
        file_locks,
    },
};

/// Deletes the expired grants of some files, with an audit entry and an event per file.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn delete_expired_grants(app: &App) -> Result<RoundReport, Error> {
    if !app.owners.may_change_records() {
        return Ok(RoundReport::default());
    }
    run_round(&FilesWithExpiredGrants { app }, &app.rotations.expired_grants).await
}

/// The files with expired grants.
struct FilesWithExpiredGrants<'a> {
    app: &'a App,
}

impl DueItems for FilesWithExpiredGrants<'_> {
    type Item = ExpiredGrants;
    type Position = ExpiredGrants;

    const ACTION: &'static str = "delete expired grants";
    const PAGE_ITEMS: usize = 100;

    async fn list_page(&self, after: Option<ExpiredGrants>, limit: i64) -> Result<Vec<ExpiredGrants>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let due = file_grants::list_expired(&mut tx, after, limit).await?;
        tx.commit().await?;
        Ok(due)
    }

    fn position(item: &ExpiredGrants) -> ExpiredGrants {
        *item
    }

    fn fields<'a>(&self, expired: &'a ExpiredGrants) -> ItemFields<'a> {
        ItemFields { file: Some(expired.file_id), ..ItemFields::new(expired.tenant_id) }
    }

    async fn process(&self, expired: &ExpiredGrants) -> Result<ItemOutcome, Error> {
        delete_of_file(self.app, expired).await.map(ItemOutcome::from_done)
    }
}

/// Deletes the expired grants of one file in its own transaction, and returns whether there were any.
async fn delete_of_file(app: &App, expired: &ExpiredGrants) -> Result<bool, Error> {
    let caller = system_caller(app, expired.tenant_id).await?;
    let mut tx = app.db.tenant_tx(expired.tenant_id, &Viewer::system()).await?;
    let outcome = async {
        if file_locks::get_for_update(&mut tx, expired.file_id).await?.is_none() {
            return Ok(false);
        }
        let revoked = file_grants::delete_expired(&mut tx, expired.file_id).await?;
        if revoked.is_empty() {
            return Ok(false);
        }
        let file = begin_change(&mut tx, expired.file_id).await?;
        record_revocation(&mut tx, &caller, &file, revoked, "expired").await?;
        Ok(true)
    }
    .await;
    tx.finish(outcome).await
}
