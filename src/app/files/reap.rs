//! Deletes the bytes of blobs that nothing refers to, once their undelete window has passed.

use crate::{
    app::{App, Error},
    db::blobs,
};

/// How many blobs one round looks at.
const BLOBS_PER_ROUND: i64 = 100;

/// Deletes one round of due blobs; answers how many are gone. First the bytes, then the row: a crash in between leaves a
/// row that says what to delete.
///
/// # Errors
/// When the database or the store does not answer. What was deleted before stays deleted.
pub async fn reap(app: &App) -> Result<usize, Error> {
    let mut tx = app.db.system_tx().await?;
    let due = blobs::list_due(&mut tx, BLOBS_PER_ROUND).await?;
    tx.commit().await?;
    let mut reaped = 0;
    for due in due {
        if due.blob.provider != app.store.provider() {
            tracing::warn!(tenant = %due.tenant, key = %due.blob.key, provider = %due.blob.provider, "no such provider");
            continue;
        }
        app.store.delete(&due.blob.key).await?;
        let mut tx = app.db.system_tx().await?;
        blobs::delete(&mut tx, due.tenant, due.blob.id).await?;
        tx.commit().await?;
        reaped += 1;
    }
    Ok(reaped)
}
