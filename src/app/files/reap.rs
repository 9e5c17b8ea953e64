//! Deletes the bytes of blobs that nothing refers to, once their undelete window has passed.

use crate::{
    app::{App, Error},
    db::blobs::{self, DueBlob, TenantBlob},
    storage::ObjectStorage,
};

/// How many blobs one round looks at.
const BLOBS_PER_ROUND: usize = 100;

/// Deletes one round of due blobs; answers how many are gone. First the bytes, then the row: a crash in between leaves a
/// row that says what to delete. One that fails is tried again when the rounds have been through all the others.
///
/// # Errors
/// When the database does not answer.
pub async fn reap(app: &App) -> Result<usize, Error> {
    let mut reaped = 0;
    for store in app.stores.iter() {
        reaped += reap_provider(app, store.as_ref()).await?;
    }
    Ok(reaped)
}

/// A round for each provider, so that one that is away does not hold up the others.
async fn reap_provider(app: &App, store: &dyn ObjectStorage) -> Result<usize, Error> {
    let provider = store.provider();
    let after = app.rotations.due_blobs.place(provider);
    let limit = i64::try_from(BLOBS_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let due = blobs::list_due(&mut tx, provider, after, limit).await?;
    tx.commit().await?;
    let last = due.last().filter(|_| due.len() == BLOBS_PER_ROUND).map(DueBlob::place);
    app.rotations.due_blobs.turn(provider, last);
    let mut reaped = 0;
    for DueBlob { owned: due, .. } in due {
        match delete(app, store, &due).await {
            Ok(()) => reaped += 1,
            Err(error) => {
                let provider = store.provider();
                tracing::warn!(tenant = %due.tenant, provider, key = %due.blob.key, %error, "delete blob");
            }
        }
    }
    Ok(reaped)
}

async fn delete(app: &App, store: &dyn ObjectStorage, due: &TenantBlob) -> Result<(), Error> {
    store.delete(&due.blob.key).await?;
    let mut tx = app.db.system_tx().await?;
    blobs::delete(&mut tx, due.tenant, due.blob.id).await?;
    Ok(tx.commit().await?)
}
