//! Deletes files whose time has come: their `expire_time`, or the time that their retention says. By the rules of `DeleteFile`,
//! as the system.

use super::delete::dispose;
use crate::{
    app::{App, Error, tenants::system_caller},
    db::{Viewer, expiring_files, files},
    domain::{
        caller::Caller,
        clock::Timestamp,
        file::File,
        ids::{FileId, TenantId},
    },
    jobs::{self, Job, Unless},
};

/// Under which key the job of a tenant stands: one is enough.
const KEY: &str = "delete expired files";
/// How many tenants one tick looks at.
const TENANTS_PER_TICK: usize = 1_000;
/// How many files are read at once.
const FILES_PER_BATCH: usize = 100;
/// How many files a job deletes before other tenants have their turn.
const FILES_PER_JOB: usize = 1_000;
/// Tenants are gone through one after the other: one turn for all of them.
const ALL: &str = "";

/// Asks for a job for each tenant that has files to delete; answers whether there are more tenants to look at.
///
/// # Errors
/// When the database does not answer.
pub async fn find_expired(app: &App) -> Result<bool, Error> {
    let after = app.rotations.expiring_tenants.place(ALL);
    let limit = i64::try_from(TENANTS_PER_TICK).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let found = expiring_files::tenants(&mut tx, after, limit).await?;
    for tenant in found.iter().filter(|found| found.is_due).map(|found| found.tenant) {
        let job = Job::DeleteExpiredFiles {};
        jobs::enqueue_for(&mut tx, tenant, app.ids.as_ref(), &job, Unless::Queued(KEY)).await?;
    }
    tx.commit().await?;
    let last = found.last().filter(|_| found.len() == TENANTS_PER_TICK).map(|found| found.tenant);
    app.rotations.expiring_tenants.turn(ALL, last);
    Ok(last.is_some())
}

/// Deletes the files of one tenant that are due. One that fails does not keep back the others: the next tick finds it again.
///
/// # Errors
/// When the database does not answer. What was deleted before stays deleted.
pub async fn delete_expired(app: &App, tenant: TenantId) -> Result<(), Error> {
    let caller = system_caller(app, tenant).await?;
    let has_trash = caller.tenant.policy.trash.days > 0;
    let limit = i64::try_from(FILES_PER_BATCH).unwrap_or(i64::MAX);
    let (mut after, mut deleted) = (None, 0);
    loop {
        let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
        let due = expiring_files::list(&mut tx, has_trash, after, limit).await?;
        tx.commit().await?;
        for (_, id) in &due {
            match delete_due(app, &caller, *id).await {
                Ok(is_deleted) => deleted += usize::from(is_deleted),
                Err(error @ Error::DatabaseUnavailable(_)) => return Err(error),
                Err(error) => tracing::warn!(%tenant, file = %id, %error, "delete expired file"),
            }
        }
        after = due.last().copied().filter(|_| due.len() == FILES_PER_BATCH);
        if after.is_none() {
            break;
        }
        if deleted >= FILES_PER_JOB {
            return ask_again(app, tenant).await;
        }
    }
    if deleted > 0 {
        tracing::info!(%tenant, deleted, "deleted expired files");
    }
    Ok(())
}

/// The rest, when others have had their turn.
async fn ask_again(app: &App, tenant: TenantId) -> Result<(), Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let job = Job::DeleteExpiredFiles {};
    jobs::enqueue(&mut tx, app.ids.as_ref(), &job, Unless::Queued(KEY)).await?;
    Ok(tx.commit().await?)
}

/// One file, one transaction: whatever somebody did to it since it was found counts.
async fn delete_due(app: &App, caller: &Caller, id: FileId) -> Result<bool, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::system()).await?;
    let outcome = async {
        let Some(found) = files::get_for_update(&mut tx, id).await? else { return Ok(false) };
        let now = tx.now().await?;
        let Some(reason) = due(&found.file, now) else { return Ok(false) };
        let details = serde_json::json!({ "reason": reason });
        match dispose(app, &mut tx, caller, found.file, details).await {
            Ok(_) => Ok(true),
            // Its time to be kept was changed since it was found.
            Err(Error::FileRetained { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
    .await;
    tx.finish(outcome).await
}

/// Why a file is to be deleted now, if it is.
fn due(file: &File, now: Timestamp) -> Option<&'static str> {
    let has_come = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
    if file.trash.is_some() {
        None
    } else if has_come(file.expire_time) {
        Some("expire_time")
    } else if has_come(file.deletion_time) {
        Some("retention_days")
    } else {
        None
    }
}
