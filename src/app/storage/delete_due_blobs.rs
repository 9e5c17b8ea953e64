//! Deletes unreferenced blobs after the blob deletion delay.

use crate::{
    app::{App, Error},
    db::blobs::{self, DueBlob, TenantBlob},
    storage::ObjectStorage,
};

/// The number of blobs of a provider that one round examines.
const BLOBS_PER_ROUND: usize = 100;

/// Deletes one round of due blobs and returns their number. Deletes the bytes before the row, so that after a
/// crash in between the row still shows what to delete. A blob that fails is retried after the rounds have
/// processed all others.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn delete_due_blobs(app: &App) -> Result<usize, Error> {
    let mut deleted = 0;
    for store in app.stores.iter() {
        deleted += delete_in_store(app, store.as_ref()).await?;
    }
    Ok(deleted)
}

/// Runs the round of one provider. Each has its own round, so that an unreachable store does not block the
/// others.
async fn delete_in_store(app: &App, store: &dyn ObjectStorage) -> Result<usize, Error> {
    let provider = store.provider();
    let after = app.rotations.due_blobs.position(provider);
    let limit = i64::try_from(BLOBS_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let due = blobs::list_due(&mut tx, provider, after, limit).await?;
    tx.commit().await?;
    let last = due.last().filter(|_| due.len() == BLOBS_PER_ROUND).map(DueBlob::cursor);
    app.rotations.due_blobs.advance(provider, last);
    let mut deleted = 0;
    for DueBlob { tenant_blob: due, .. } in due {
        match delete_blob(app, store, &due).await {
            Ok(()) => deleted += 1,
            Err(error) => {
                let provider = store.provider();
                tracing::warn!(tenant = %due.tenant, provider, key = %due.blob.key, %error, "failed to delete blob");
            }
        }
    }
    Ok(deleted)
}

async fn delete_blob(app: &App, store: &dyn ObjectStorage, due: &TenantBlob) -> Result<(), Error> {
    store.delete(&due.blob.key).await?;
    let mut tx = app.db.system_tx().await?;
    blobs::delete(&mut tx, due.tenant, due.blob.id).await?;
    Ok(tx.commit().await?)
}
