//! Deletes files that have passed their `expire_time` or their retention period, as the system, by the rules
//! of `DeleteFile`.

use super::delete::trash_or_purge;
use crate::{
    app::{
        App, Error, RoundReport,
        rounds::{DueItems, ItemFields, ItemOutcome, run_pass, run_round},
        tenants::system_caller,
    },
    db::{
        Viewer,
        expiring_files::{self, ExpiredFile, ExpiringTenant},
        file_locks,
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        file::File,
        ids::{FileId, TenantId},
    },
    jobs::{self, Deduplicate, Job},
};

/// The deduplication key of the job: one queued job per tenant is enough.
const KEY: &str = "delete expired files";
/// The number of files that a job deletes before it yields to other tenants.
const FILES_PER_JOB: usize = 1_000;

/// Enqueues a job for each tenant of a round that has expired files.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn enqueue_expired_file_deletions(app: &App) -> Result<RoundReport, Error> {
    if !app.owners.may_change_records() {
        return Ok(RoundReport::default());
    }
    run_round(&ExpiringTenants { app }, &app.rotations.expiring_tenants).await
}

/// The tenants with files that will be deleted automatically. Most of these files are not due yet.
struct ExpiringTenants<'a> {
    app: &'a App,
}

impl DueItems for ExpiringTenants<'_> {
    type Item = ExpiringTenant;
    type Position = TenantId;

    const ACTION: &'static str = "enqueue deletion of expired files";
    const PAGE_ITEMS: usize = 1_000;

    async fn list_page(&self, after: Option<TenantId>, limit: i64) -> Result<Vec<ExpiringTenant>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let found = expiring_files::list_tenants(&mut tx, after, limit).await?;
        tx.commit().await?;
        Ok(found)
    }

    fn position(item: &ExpiringTenant) -> TenantId {
        item.tenant
    }

    fn fields<'a>(&self, item: &'a ExpiringTenant) -> ItemFields<'a> {
        ItemFields::new(item.tenant)
    }

    async fn process(&self, item: &ExpiringTenant) -> Result<ItemOutcome, Error> {
        if !item.is_due {
            return Ok(ItemOutcome::Skipped);
        }
        let (job, ids) = (Job::DeleteExpiredFiles {}, self.app.ids.as_ref());
        let mut tx = self.app.db.system_tx().await?;
        jobs::enqueue_job_for(&mut tx, item.tenant, ids, &job, Deduplicate::ByKey(KEY)).await?;
        tx.commit().await?;
        Ok(ItemOutcome::Enqueued)
    }
}

/// Deletes the expired files of one tenant. A file that fails does not block the others; the next tick finds
/// it again.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable. Earlier deletions are not rolled back.
pub async fn delete_expired_files(app: &App, tenant: TenantId) -> Result<(), Error> {
    let caller = system_caller(app, tenant).await?;
    let RoundReport { done, failed, has_more } =
        run_pass(&ExpiredFiles { app, caller }, FILES_PER_JOB).await?;
    if done > 0 || failed > 0 {
        tracing::info!(%tenant, done, failed, "deleted expired files");
    }
    if has_more { enqueue_again(app, tenant).await } else { Ok(()) }
}

/// The expired files of one tenant.
struct ExpiredFiles<'a> {
    app: &'a App,
    /// The system, acting in the tenant.
    caller: Caller,
}

impl DueItems for ExpiredFiles<'_> {
    type Item = ExpiredFile;
    type Position = ExpiredFile;

    const ACTION: &'static str = "delete expired file";
    const PAGE_ITEMS: usize = 100;

    async fn list_page(&self, after: Option<ExpiredFile>, limit: i64) -> Result<Vec<ExpiredFile>, Error> {
        let has_trash = self.caller.tenant.policy.trash.days > 0;
        let mut tx = self.app.db.tenant_tx(self.caller.tenant_id(), &Viewer::system()).await?;
        let due = expiring_files::list_due(&mut tx, has_trash, after, limit).await?;
        tx.commit().await?;
        Ok(due)
    }

    fn position(item: &ExpiredFile) -> ExpiredFile {
        *item
    }

    fn fields<'a>(&self, expired: &'a ExpiredFile) -> ItemFields<'a> {
        ItemFields { file: Some(expired.file), ..ItemFields::new(self.caller.tenant_id()) }
    }

    async fn process(&self, expired: &ExpiredFile) -> Result<ItemOutcome, Error> {
        delete_if_expired(self.app, &self.caller, expired.file).await.map(ItemOutcome::from_done)
    }
}

/// Enqueues a job for the remaining files, so that other tenants are served first.
async fn enqueue_again(app: &App, tenant: TenantId) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let job = Job::DeleteExpiredFiles {};
    jobs::enqueue_job(&mut tx, app.ids.as_ref(), &job, Deduplicate::ByKey(KEY)).await?;
    Ok(tx.commit().await?)
}

/// Deletes one file in its own transaction. Checks its times again, because it may have changed since it was
/// listed.
async fn delete_if_expired(app: &App, caller: &Caller, id: FileId) -> Result<bool, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let outcome = async {
        let Some(found) = file_locks::get_for_update(&mut tx, id).await? else { return Ok(false) };
        let now = tx.now().await?;
        let Some(reason) = expiry_reason(&found.file, now) else { return Ok(false) };
        let details = serde_json::json!({ "reason": reason });
        match trash_or_purge(app, &mut tx, caller, found.file, details).await {
            Ok(_) => Ok(true),
            // Its retention was extended after it was listed.
            Err(Error::FileRetained { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
    .await;
    tx.finish(outcome).await
}

/// Returns the name of the time that the file has passed, or `None` if it is not expired.
fn expiry_reason(file: &File, now: Timestamp) -> Option<&'static str> {
    let is_past = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
    if file.trash.is_some() {
        None
    } else if is_past(file.expire_time) {
        Some("expire_time")
    } else if is_past(file.deletion_time) {
        Some("retention_days")
    } else {
        None
    }
}
