//! Purges what has been in the trash until its `purge_time`.

use super::purge::remove;
use crate::{
    app::{App, Error, tenants::system_caller},
    db::{Viewer, files},
    domain::ids::{FileId, TenantId},
};

/// How many files one round looks at.
const FILES_PER_ROUND: usize = 100;
/// The trash is no store's: one turn for all of it.
const ALL: &str = "";

/// Purges one round of due files; answers how many are gone. A file that must be kept, or that somebody restored
/// meanwhile, is passed over; one that fails is tried again when the rounds have been through all the others.
///
/// # Errors
/// When the database does not answer. What was purged before stays purged.
pub async fn empty_trash(app: &App) -> Result<usize, Error> {
    let after = app.rotations.due_files.place(ALL);
    let limit = i64::try_from(FILES_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let due = files::list_due(&mut tx, after, limit).await?;
    tx.commit().await?;
    app.rotations.due_files.turn(ALL, due.last().filter(|_| due.len() == FILES_PER_ROUND).copied());
    let mut purged = 0;
    for (_, tenant, id) in due {
        match purge_due(app, tenant, id).await {
            Ok(is_purged) => purged += usize::from(is_purged),
            Err(error) => tracing::warn!(%tenant, file = %id, %error, "purge from trash"),
        }
    }
    Ok(purged)
}

async fn purge_due(app: &App, tenant: TenantId, id: FileId) -> Result<bool, Error> {
    let caller = system_caller(app, tenant).await?;
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let outcome = async {
        let Some(found) = files::get_for_update(&mut tx, id).await? else { return Ok(false) };
        let Some(trash) = found.file.trash else { return Ok(false) };
        if tx.now().await? < trash.purge_time {
            return Ok(false);
        }
        remove(app, &mut tx, &caller, found.file).await.map(|()| true)
    }
    .await;
    tx.finish(outcome).await
}
