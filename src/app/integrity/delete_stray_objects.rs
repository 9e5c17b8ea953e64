//! Deletes stray objects, which no blob references, when they are due: the originals of moved blobs, and the
//! copies of interrupted moves.

use crate::{
    app::{App, Error},
    db::stray_objects::{self, DueStrayObject, StrayObject},
    storage::ObjectStorage,
};

/// The number of objects of a provider that one round examines.
const OBJECTS_PER_ROUND: usize = 100;

/// The page size for listing the multipart uploads of a key. Usually there is at most one.
const UPLOADS_OF_A_KEY: usize = 10;

/// Deletes one round of due objects and returns their number. Deletes the bytes before the row, so that after
/// a crash in between the row still shows what to delete. An object that fails is retried after the rounds
/// have processed all others.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn delete_stray_objects(app: &App) -> Result<usize, Error> {
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
    let after = app.rotations.due_stray_objects.position(provider);
    let limit = i64::try_from(OBJECTS_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let due = stray_objects::list_due(&mut tx, provider, after, limit).await?;
    tx.commit().await?;
    let last = due.last().filter(|_| due.len() == OBJECTS_PER_ROUND).map(DueStrayObject::cursor);
    app.rotations.due_stray_objects.advance(provider, last);
    let mut deleted = 0;
    for DueStrayObject { object, .. } in due {
        match delete_object(app, store, &object).await {
            Ok(is_deleted) => deleted += usize::from(is_deleted),
            Err(error) => {
                let StrayObject { tenant, provider, key, .. } = &object;
                tracing::warn!(%tenant, provider, %key, %error, "failed to delete stray object");
            }
        }
    }
    Ok(deleted)
}

async fn delete_object(app: &App, store: &dyn ObjectStorage, object: &StrayObject) -> Result<bool, Error> {
    let mut tx = app.db.system_tx().await?;
    let is_claimed = stray_objects::claim(&mut tx, object).await?;
    tx.commit().await?;
    if !is_claimed {
        return Ok(false);
    }
    if object.may_be_unfinished {
        abort_uploads(store, object).await?;
    }
    store.delete(&object.key).await?;
    let mut tx = app.db.system_tx().await?;
    stray_objects::delete(&mut tx, object).await?;
    tx.commit().await?;
    Ok(true)
}

/// Aborts the multipart uploads of a key. Lists them from the store, because the process that started one may
/// have crashed before it recorded its id.
async fn abort_uploads(store: &dyn ObjectStorage, object: &StrayObject) -> Result<(), Error> {
    loop {
        let page = store.list_multiparts(object.key.as_str(), None, UPLOADS_OF_A_KEY).await?;
        for upload in page.multiparts.iter().filter(|upload| upload.key == object.key) {
            store.abort_multipart(&upload.key, &upload.id).await?;
        }
        if page.is_last || page.multiparts.is_empty() {
            return Ok(());
        }
    }
}
