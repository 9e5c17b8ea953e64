//! Deletes unreferenced blobs after the blob deletion delay.

use crate::{
    app::{
        App, Error, RoundReport,
        owner::delete::{Deletion, delete_from_store},
        rounds::{DueItems, ItemFields, ItemOutcome, run_round_in_each_store},
    },
    db::blobs::{self, DueBlob, DueBlobCursor, TenantBlob},
    storage::ObjectStorage,
};

/// Runs one round of deletions in each store. Deletes the bytes before the row, so that after a crash in
/// between the row still shows what to delete.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn delete_due_blobs(app: &App) -> Result<RoundReport, Error> {
    run_round_in_each_store(app, &app.rotations.due_blobs, |store| DueBlobs { app, store }).await
}

/// The due blobs in one store.
struct DueBlobs<'a> {
    app: &'a App,
    store: &'a dyn ObjectStorage,
}

impl DueItems for DueBlobs<'_> {
    type Item = DueBlob;
    type Position = DueBlobCursor;

    const ACTION: &'static str = "delete blob";
    const PAGE_ITEMS: usize = 100;

    fn provider(&self) -> Option<&str> {
        Some(self.store.provider())
    }

    async fn list_page(&self, after: Option<DueBlobCursor>, limit: i64) -> Result<Vec<DueBlob>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let due = blobs::list_due(&mut tx, self.store.provider(), after, limit).await?;
        tx.commit().await?;
        Ok(due)
    }

    fn position(item: &DueBlob) -> DueBlobCursor {
        item.cursor()
    }

    fn fields<'a>(&self, item: &'a DueBlob) -> ItemFields<'a> {
        let TenantBlob { tenant, blob } = &item.tenant_blob;
        ItemFields { key: Some(&blob.key), ..ItemFields::new(*tenant) }
    }

    async fn process(&self, item: &DueBlob) -> Result<ItemOutcome, Error> {
        let TenantBlob { tenant, blob } = &item.tenant_blob;
        delete_from_store(self.store, Deletion::Object(&blob.key)).await?;
        let mut tx = self.app.db.system_tx().await?;
        blobs::delete(&mut tx, *tenant, blob.id).await?;
        tx.commit().await?;
        Ok(ItemOutcome::Done)
    }
}
