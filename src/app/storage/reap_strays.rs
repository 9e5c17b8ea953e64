//! Removes objects that no blob refers to and whose time has come: what a move left where it came from, and what a move
//! that did not end left where it went.

use crate::{
    app::{App, Error},
    db::stray_objects::{self, DueStray, StrayObject},
    storage::ObjectStorage,
};

/// How many objects of a provider one round looks at.
const OBJECTS_PER_ROUND: usize = 100;

/// More than one upload of a key that was made once is not to be expected.
const UPLOADS_OF_A_KEY: usize = 10;

/// Removes one round of due objects; answers how many are gone. First the bytes, then the row: a crash in between leaves
/// a row that says what to remove. One that fails is tried again when the rounds have been through all the others.
///
/// # Errors
/// When the database does not answer.
pub async fn reap_strays(app: &App) -> Result<usize, Error> {
    let mut reaped = 0;
    for store in app.stores.iter() {
        reaped += reap_provider(app, store.as_ref()).await?;
    }
    Ok(reaped)
}

/// A round for each provider, so that one that is away does not hold up the others.
async fn reap_provider(app: &App, store: &dyn ObjectStorage) -> Result<usize, Error> {
    let provider = store.provider();
    let after = app.rotations.due_strays.place(provider);
    let limit = i64::try_from(OBJECTS_PER_ROUND).unwrap_or(i64::MAX);
    let mut tx = app.db.system_tx().await?;
    let due = stray_objects::list_due(&mut tx, provider, after, limit).await?;
    tx.commit().await?;
    let last = due.last().filter(|_| due.len() == OBJECTS_PER_ROUND).map(DueStray::place);
    app.rotations.due_strays.turn(provider, last);
    let mut reaped = 0;
    for DueStray { object, .. } in due {
        match remove(app, store, &object).await {
            Ok(is_gone) => reaped += usize::from(is_gone),
            Err(error) => {
                let StrayObject { tenant, provider, key, .. } = &object;
                tracing::warn!(%tenant, provider, %key, %error, "remove stray object");
            }
        }
    }
    Ok(reaped)
}

async fn remove(app: &App, store: &dyn ObjectStorage, object: &StrayObject) -> Result<bool, Error> {
    let mut tx = app.db.system_tx().await?;
    let is_claimed = stray_objects::claim(&mut tx, object).await?;
    tx.commit().await?;
    if !is_claimed {
        return Ok(false);
    }
    if object.may_be_unfinished {
        abort(store, object).await?;
    }
    store.delete(&object.key).await?;
    let mut tx = app.db.system_tx().await?;
    stray_objects::delete(&mut tx, object).await?;
    tx.commit().await?;
    Ok(true)
}

/// Whoever began a multipart upload may have died before it could say so; the store knows.
async fn abort(store: &dyn ObjectStorage, object: &StrayObject) -> Result<(), Error> {
    loop {
        let page = store.list_multiparts(object.key.as_str(), None, UPLOADS_OF_A_KEY).await?;
        for left in page.multiparts.iter().filter(|left| left.key == object.key) {
            store.abort_multipart(&left.key, &left.id).await?;
        }
        if page.is_last || page.multiparts.is_empty() {
            return Ok(());
        }
    }
}
