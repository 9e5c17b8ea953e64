//! Purges files in the trash that have passed their `purge_time`.

use super::purge::purge_locked;
use crate::{
    app::{App, Error, tenants::system_caller},
    db::{Viewer, files},
    domain::ids::{FileId, TenantId},
};

/// The number of files that one round examines.
const FILES_PER_ROUND: usize = 100;
/// The key of the rotation that the trash of all tenants shares.
const ROTATION_KEY: &str = "";

/// Purges one round of due files and returns their number. Skips files that must be kept, and files that were
/// undeleted after they were listed. A file that fails is retried after the rounds have processed all others.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable. Earlier purges are not rolled back.
pub async fn purge_trash(app: &App) -> Result<usize, Error> {
    let after = app.rotations.due_files.position(ROTATION_KEY);
    let limit = i64::try_from(FILES_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let due = files::list_due(&mut tx, after, limit).await?;
    tx.commit().await?;
    app.rotations
        .due_files
        .advance(ROTATION_KEY, due.last().filter(|_| due.len() == FILES_PER_ROUND).copied());
    let mut purged = 0;
    for (_, tenant, id) in due {
        match purge_if_due(app, tenant, id).await {
            Ok(is_purged) => purged += usize::from(is_purged),
            Err(error) => tracing::warn!(%tenant, file = %id, %error, "failed to purge file from trash"),
        }
    }
    Ok(purged)
}

async fn purge_if_due(app: &App, tenant: TenantId, id: FileId) -> Result<bool, Error> {
    let caller = system_caller(app, tenant).await?;
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let outcome = async {
        let Some(found) = files::get_for_update(&mut tx, id).await? else { return Ok(false) };
        let Some(trash) = found.file.trash else { return Ok(false) };
        if tx.now().await? < trash.purge_time {
            return Ok(false);
        }
        purge_locked(app, &mut tx, &caller, found.file).await.map(|()| true)
    }
    .await;
    tx.finish(outcome).await
}
