//! Deletes files that have passed their `expire_time` or their retention period, as the system, by the rules
//! of `DeleteFile`.

use super::delete::trash_or_purge;
use crate::{
    app::{App, Error, tenants::system_caller},
    db::{Viewer, expiring_files, files},
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
/// The number of tenants that one tick examines.
const TENANTS_PER_TICK: usize = 1_000;
/// The number of files read in one query.
const FILES_PER_BATCH: usize = 100;
/// The number of files that a job deletes before it yields to other tenants.
const FILES_PER_JOB: usize = 1_000;
/// The rotation key: all tenants share one rotation.
const ALL: &str = "";

/// Enqueues a job for each tenant that has expired files. Returns whether more tenants remain to be examined.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn enqueue_expired_file_deletions(app: &App) -> Result<bool, Error> {
    let after = app.rotations.expiring_tenants.position(ALL);
    let limit = i64::try_from(TENANTS_PER_TICK).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let found = expiring_files::list_tenants(&mut tx, after, limit).await?;
    for tenant in found.iter().filter(|found| found.is_due).map(|found| found.tenant) {
        let job = Job::DeleteExpiredFiles {};
        jobs::enqueue_job_for(&mut tx, tenant, app.ids.as_ref(), &job, Deduplicate::ByKey(KEY)).await?;
    }
    tx.commit().await?;
    let last = found.last().filter(|_| found.len() == TENANTS_PER_TICK).map(|found| found.tenant);
    app.rotations.expiring_tenants.advance(ALL, last);
    Ok(last.is_some())
}

/// Deletes the expired files of one tenant. A file that fails does not block the others; the next tick finds
/// it again.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable. Earlier deletions are not rolled back.
pub async fn delete_expired_files(app: &App, tenant: TenantId) -> Result<(), Error> {
    let caller = system_caller(app, tenant).await?;
    let has_trash = caller.tenant.policy.trash.days > 0;
    let limit = i64::try_from(FILES_PER_BATCH).unwrap_or(i64::MAX);
    let (mut after, mut deleted) = (None, 0);
    loop {
        let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
        let due = expiring_files::list_due(&mut tx, has_trash, after, limit).await?;
        tx.commit().await?;
        for (_, id) in &due {
            match delete_if_expired(app, &caller, *id).await {
                Ok(is_deleted) => deleted += usize::from(is_deleted),
                Err(error @ Error::DatabaseUnavailable(_)) => return Err(error),
                Err(error) => tracing::warn!(%tenant, file = %id, %error, "failed to delete expired file"),
            }
        }
        after = due.last().copied().filter(|_| due.len() == FILES_PER_BATCH);
        if after.is_none() {
            break;
        }
        if deleted >= FILES_PER_JOB {
            return enqueue_again(app, tenant).await;
        }
    }
    if deleted > 0 {
        tracing::info!(%tenant, deleted, "deleted expired files");
    }
    Ok(())
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
        let Some(found) = files::get_for_update(&mut tx, id).await? else { return Ok(false) };
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
