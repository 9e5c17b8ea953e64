//! Deletes stray objects, which no blob references, when they are due: the originals of moved blobs, and the
//! copies of interrupted moves.

use crate::{
    app::{
        App, Error, RoundReport,
        owner::delete::{Deletion, delete_from_store},
        rounds::{
            DueItems, ItemFields, ItemOutcome, RoundStore, run_round_in_each_store, run_round_in_store,
        },
        storage::delete_objects::delete_objects,
    },
    db::stray_objects::{self, DueStrayObject, StrayObject, StrayObjectCursor},
    domain::object_key::ObjectKey,
    storage::ObjectStorage,
};

/// The page size for listing the multipart uploads of a key. Usually there is at most one.
const UPLOADS_OF_A_KEY: usize = 10;

/// Runs one round of deletions in each store. Deletes the bytes before the row, so that after a crash in
/// between the row still shows what to delete.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn delete_stray_objects(app: &App) -> Result<RoundReport, Error> {
    let rotation = &app.rotations.due_stray_objects;
    run_round_in_each_store(app, rotation, |store| DueStrayObjects { app, store }).await
}

/// Runs one round of deletions in one store.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable, and `ProviderUnknown` if the provider is not
/// configured.
pub async fn delete_stray_objects_in(app: &App, provider: &str) -> Result<RoundReport, Error> {
    let rotation = &app.rotations.due_stray_objects;
    run_round_in_store(app, provider, rotation, |store| DueStrayObjects { app, store }).await
}

/// The due stray objects in one store.
struct DueStrayObjects<'a> {
    app: &'a App,
    store: &'a dyn ObjectStorage,
}

impl DueItems for DueStrayObjects<'_> {
    type Item = DueStrayObject;
    type Position = StrayObjectCursor;

    const ACTION: &'static str = "delete stray object";
    const PAGE_ITEMS: usize = 100;
    const BATCH_ITEMS: usize = 100;

    fn round_store(&self) -> Option<RoundStore<'_>> {
        RoundStore::of(self.app, self.store)
    }

    async fn list_page(
        &self,
        after: Option<StrayObjectCursor>,
        limit: i64,
    ) -> Result<Vec<DueStrayObject>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let due = stray_objects::list_due(&mut tx, self.store.provider(), after, limit).await?;
        tx.commit().await?;
        Ok(due)
    }

    fn position(item: &DueStrayObject) -> StrayObjectCursor {
        item.cursor()
    }

    fn fields<'a>(&self, item: &'a DueStrayObject) -> ItemFields<'a> {
        ItemFields { key: Some(&item.object.key), ..ItemFields::new(item.object.tenant) }
    }

    async fn process(&self, item: &DueStrayObject) -> Result<ItemOutcome, Error> {
        let outcomes = self.process_batch(std::slice::from_ref(item)).await;
        outcomes.into_iter().next().unwrap_or(Ok(ItemOutcome::Skipped))
    }

    async fn process_batch(&self, items: &[DueStrayObject]) -> Vec<Result<ItemOutcome, Error>> {
        let mut outcomes: Vec<Result<ItemOutcome, Error>> = Vec::with_capacity(items.len());
        for item in items {
            outcomes.push(prepare(self.app, self.store, &item.object).await);
        }
        let is_ready = |outcome: &Result<ItemOutcome, Error>| matches!(outcome, Ok(ItemOutcome::Done));
        let ready = items.iter().zip(&outcomes).filter(|(_, outcome)| is_ready(outcome));
        let keys: Vec<ObjectKey> = ready.map(|(item, _)| item.object.key.clone()).collect();
        let mut results = delete_objects(self.store, &keys).await.into_iter();
        for (item, outcome) in items.iter().zip(&mut outcomes) {
            if is_ready(outcome) {
                *outcome = match results.next().unwrap_or(Ok(())) {
                    Ok(()) => delete_row(self.app, &item.object).await.map(|()| ItemOutcome::Done),
                    Err(error) => Err(error.into()),
                };
            }
        }
        outcomes
    }
}

/// Claims an object for deletion, and aborts its unfinished uploads. Returns `Done` if its bytes are to be
/// deleted, and `Skipped` if it is not due any more, or a blob references it.
async fn prepare(app: &App, store: &dyn ObjectStorage, object: &StrayObject) -> Result<ItemOutcome, Error> {
    let mut tx = app.db.system_tx().await?;
    let is_claimed = stray_objects::claim(&mut tx, object).await?;
    tx.commit().await?;
    if is_claimed && object.may_be_unfinished {
        abort_uploads(store, object).await?;
    }
    Ok(ItemOutcome::from_done(is_claimed))
}

async fn delete_row(app: &App, object: &StrayObject) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    stray_objects::delete(&mut tx, object).await?;
    Ok(tx.commit().await?)
}

/// Aborts the multipart uploads of a key. Lists them from the store, because the process that started one may
/// have crashed before it recorded its id.
async fn abort_uploads(store: &dyn ObjectStorage, object: &StrayObject) -> Result<(), Error> {
    loop {
        let page = store.list_multiparts(object.key.as_str(), None, UPLOADS_OF_A_KEY).await?;
        for upload in page.multiparts.iter().filter(|upload| upload.key == object.key) {
            delete_from_store(store, Deletion::Multipart(&upload.key, &upload.id)).await?;
        }
        if page.is_last || page.multiparts.is_empty() {
            return Ok(());
        }
    }
}
