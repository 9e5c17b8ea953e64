//! Purges files in the trash that have passed their `purge_time`.

use super::purge::purge_locked;
use crate::{
    app::{
        App, Error, RoundReport,
        rounds::{DueItems, ItemFields, ItemOutcome, run_round},
        tenants::system_caller,
    },
    db::{
        Viewer, file_locks,
        files::{self, DueFile},
    },
    domain::ids::{FileId, TenantId},
};

/// Purges one round of due files of all tenants. Skips files that must be kept, and files that were undeleted
/// after they were listed.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable. Earlier purges are not rolled back.
pub async fn purge_trash(app: &App) -> Result<RoundReport, Error> {
    if !app.owners.may_change_records() {
        return Ok(RoundReport::default());
    }
    run_round(&TrashedFiles { app }, &app.rotations.due_files).await
}

/// The files of all tenants whose time in the trash has ended.
struct TrashedFiles<'a> {
    app: &'a App,
}

impl DueItems for TrashedFiles<'_> {
    type Item = DueFile;
    type Position = DueFile;

    const ACTION: &'static str = "purge file from trash";
    const PAGE_ITEMS: usize = 100;

    async fn list_page(&self, after: Option<DueFile>, limit: i64) -> Result<Vec<DueFile>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let due = files::list_due(&mut tx, after, limit).await?;
        tx.commit().await?;
        Ok(due)
    }

    fn position(item: &DueFile) -> DueFile {
        *item
    }

    fn fields<'a>(&self, due: &'a DueFile) -> ItemFields<'a> {
        ItemFields { file: Some(due.file), ..ItemFields::new(due.tenant) }
    }

    async fn process(&self, due: &DueFile) -> Result<ItemOutcome, Error> {
        purge_if_due(self.app, due.tenant, due.file).await.map(ItemOutcome::from_done)
    }
}

async fn purge_if_due(app: &App, tenant: TenantId, id: FileId) -> Result<bool, Error> {
    let caller = system_caller(app, tenant).await?;
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let outcome = async {
        let Some(found) = file_locks::get_for_update(&mut tx, id).await? else { return Ok(false) };
        let Some(trash) = found.file.trash else { return Ok(false) };
        if tx.now().await? < trash.purge_time {
            return Ok(false);
        }
        purge_locked(app, &mut tx, &caller, found.file).await.map(|()| true)
    }
    .await;
    tx.finish(outcome).await
}
