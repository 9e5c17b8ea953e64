//! Deletes unreferenced blobs after the blob deletion delay.

use std::collections::BTreeMap;

use super::delete_objects::delete_objects;
use crate::{
    app::{
        App, Error, RoundReport,
        rounds::{
            DueItems, ItemFields, ItemOutcome, RoundStore, run_round_in_each_store, run_round_in_store,
        },
    },
    db::{
        DbError,
        blobs::{self, DueBlob, DueBlobCursor, TenantBlob},
    },
    domain::{
        ids::{BlobId, TenantId},
        object_key::ObjectKey,
    },
    storage::{DELETE_BATCH_KEYS_MAX, ObjectStorage},
};

/// Runs one round of deletions in each store. Deletes the bytes before the row, so that after a crash in
/// between the row still shows what to delete.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn delete_due_blobs(app: &App) -> Result<RoundReport, Error> {
    run_round_in_each_store(app, &app.rotations.due_blobs, |store| DueBlobs { app, store }).await
}

/// Runs one round of deletions in one store.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable, and `ProviderUnknown` if the provider is not
/// configured.
pub async fn delete_due_blobs_in(app: &App, provider: &str) -> Result<RoundReport, Error> {
    run_round_in_store(app, provider, &app.rotations.due_blobs, |store| DueBlobs { app, store }).await
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
    const PAGE_ITEMS: usize = DELETE_BATCH_KEYS_MAX;
    const BATCH_ITEMS: usize = DELETE_BATCH_KEYS_MAX;

    fn round_store(&self) -> Option<RoundStore<'_>> {
        RoundStore::of(self.app, self.store)
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
        ItemFields::of_blob(&item.tenant_blob)
    }

    async fn process(&self, item: &DueBlob) -> Result<ItemOutcome, Error> {
        let outcomes = self.process_batch(std::slice::from_ref(item)).await;
        outcomes.into_iter().next().unwrap_or(Ok(ItemOutcome::Skipped))
    }

    async fn process_batch(&self, items: &[DueBlob]) -> Vec<Result<ItemOutcome, Error>> {
        let keys: Vec<ObjectKey> = items.iter().map(|item| item.tenant_blob.blob.key.clone()).collect();
        let results = delete_objects(self.store, &keys).await;
        let mut deleted: BTreeMap<TenantId, Vec<BlobId>> = BTreeMap::new();
        for (item, result) in items.iter().zip(&results) {
            let TenantBlob { tenant, blob } = &item.tenant_blob;
            if result.is_ok() {
                deleted.entry(*tenant).or_default().push(blob.id);
            }
        }
        let mut failed_rows: BTreeMap<TenantId, DbError> = BTreeMap::new();
        for (tenant, ids) in deleted {
            if let Err(error) = self.delete_rows(tenant, &ids).await {
                failed_rows.insert(tenant, error);
            }
        }
        let outcome = |(item, result): (&DueBlob, Result<(), _>)| {
            result.map_err(Error::from)?;
            match failed_rows.get(&item.tenant_blob.tenant) {
                Some(error) => Err(error.clone().into()),
                None => Ok(ItemOutcome::Done),
            }
        };
        items.iter().zip(results).map(outcome).collect()
    }
}

impl DueBlobs<'_> {
    /// Deletes rows of one tenant in one transaction, so that no transaction locks the quotas of several tenants.
    async fn delete_rows(&self, tenant: TenantId, ids: &[BlobId]) -> Result<(), DbError> {
        let mut tx = self.app.db.system_tx().await?;
        blobs::delete_all(&mut tx, tenant, ids).await?;
        tx.commit().await
    }
}
