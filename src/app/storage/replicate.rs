//! Copies blobs to the replica provider (`storage.replica_provider`), and reads each copy back before it counts.
//!
//! A copy has a key of its own. Until its blob references it, it is registered as a stray object, so that a crash
//! leaves no object that is never deleted. When the row of a blob is deleted, its copy becomes a stray object in the
//! same transaction.

use super::{
    copy::BlobCopy,
    count_pending::count_pending_if_due,
    relocation::{COPY_HOURS, hold_reservation},
};
use crate::{
    app::{
        App, Error, RoundReport,
        blob_work::{claim_blob, release, work_on_claimed},
        integrity::damage::{DamageRecorder, Suspicion},
        rounds::{DueItems, ItemFields, ItemOutcome, RoundStore, run_round_in_store},
    },
    db::{
        blob_claims::{self, BlobClaim, BlobWork},
        blob_replicas::{self, Replica, stray_copy},
        blob_turns::{self, WaitingBlob},
        blobs::{MovableBlob, TenantBlob},
        stray_objects::{self, StrayObject},
    },
    domain::ids::{BlobId, TenantId},
    storage::{ObjectStorage, Progress, PutOptions},
};

/// Copies the next blobs to a store, if it is that of the replica provider.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable, and `ProviderUnknown` if the provider is not
/// configured.
pub async fn replicate_blobs_to(
    app: &App,
    provider: &str,
    progress: &Progress,
) -> Result<RoundReport, Error> {
    if app.limits.replica_provider.as_deref() != Some(provider) {
        return Ok(RoundReport::default());
    }
    count_pending_if_due(app, provider).await;
    let store = progress.watch(app.background_stores.get(provider)?);
    let rotation = &app.rotations.replicated_blobs;
    let pending = |_| PendingBlobs { app, store: store.as_ref(), progress };
    run_round_in_store(app, provider, rotation, pending).await
}

/// The blobs without a copy, by turns of tenants.
struct PendingBlobs<'a> {
    app: &'a App,
    /// The store of the copies.
    store: &'a dyn ObjectStorage,
    progress: &'a Progress,
}

/// A pending blob that this process has claimed.
struct ClaimedBlob {
    claim: BlobClaim,
    movable: MovableBlob,
}

impl DueItems for PendingBlobs<'_> {
    type Item = WaitingBlob;
    type Position = TenantId;

    const ACTION: &'static str = "copy blob to replica provider";
    const PAGE_ITEMS: usize = 20;
    const NEEDS_DELETIONS: bool = false;

    fn round_store(&self) -> Option<RoundStore<'_>> {
        RoundStore::of(self.app, self.store)
    }

    async fn list_page(&self, after: Option<TenantId>, limit: i64) -> Result<Vec<WaitingBlob>, Error> {
        // Blobs of a provider that is unreachable or not configured must not keep those of others from being copied.
        let stores = &self.app.background_stores;
        let sources = stores.iter().map(|store| store.provider());
        let sources: Vec<&str> = sources
            .filter(|source| *source != self.store.provider() && !stores.rejects_calls(source))
            .collect();
        let limit = usize::try_from(limit).unwrap_or_default();
        let mut tx = self.app.db.system_tx().await?;
        let pending = blob_turns::list_pending(&mut tx, &sources, after, limit).await?;
        tx.commit().await?;
        Ok(pending)
    }

    fn position(item: &WaitingBlob) -> TenantId {
        item.turn
    }

    fn fields<'a>(&self, item: &'a WaitingBlob) -> ItemFields<'a> {
        ItemFields { key: Some(&item.key), ..ItemFields::new(item.tenant) }
    }

    async fn process(&self, item: &WaitingBlob) -> Result<ItemOutcome, Error> {
        // The circuit breaker may have opened since the list was read. The blob is listed again when it closes.
        if self.app.background_stores.rejects_calls(&item.provider) {
            return Ok(ItemOutcome::Skipped);
        }
        let Some(claimed) = self.claim(item).await? else { return Ok(ItemOutcome::Skipped) };
        work_on_claimed(self.app, claimed.claim, self.progress, self.replicate(&claimed)).await
    }
}

impl PendingBlobs<'_> {
    /// Claims a blob when its turn has come, so that a process that ends leaves one claim at most. Returns `None` if
    /// another process has claimed or copied it since it was listed.
    async fn claim(&self, item: &WaitingBlob) -> Result<Option<ClaimedBlob>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let claim = claim_blob(self.app, &mut tx, BlobWork::Replicate, item.tenant, item.blob).await?;
        let Some(claim) = claim else { return Ok(None) };
        let pending = blob_replicas::find_pending(&mut tx, item.tenant, item.blob, &item.provider).await?;
        // Without a commit, nothing is claimed.
        let Some(movable) = pending else { return Ok(None) };
        tx.commit().await?;
        Ok(Some(ClaimedBlob { claim, movable }))
    }

    async fn replicate(&self, claimed: &ClaimedBlob) -> Result<ItemOutcome, Error> {
        let ClaimedBlob { claim, movable } = claimed;
        let TenantBlob { tenant, blob } = &movable.tenant_blob;
        let from = self.progress.watch(self.app.background_stores.get(&blob.provider)?);
        let copy = self.reserve_copy(&movable.tenant_blob).await?;
        let options = PutOptions::for_blob(*tenant, movable.created_by.as_deref());
        let part_size_bytes = self.app.limits.uploads.part_size_bytes as u64;
        let bytes = BlobCopy { blob, from: from.as_ref(), to: self.store, key: &copy.key, options };
        let copying = bytes.copy_and_verify(part_size_bytes);
        let copied = Box::pin(hold_reservation(&self.app.db, &copy, copying)).await;
        if let Err(error) = copied {
            // If this fails too, the copy is deleted after `COPY_HOURS`.
            if let Err(second) = self.discard_copy(&copy).await {
                tracing::warn!(key = %copy.key, error = %second, "failed to discard copy");
            }
            // The original may be what is damaged or missing.
            if matches!(error, Error::ObjectDamaged | Error::ObjectMissing) {
                let (from, recorder) = (from.as_ref(), DamageRecorder::of(self.app));
                recorder.check_and_mark(from, *tenant, blob, Suspicion::Checksum, Some(*claim)).await?;
            }
            return Err(error);
        }
        self.record_copy(claimed, &copy).await
    }

    /// Reserves an unused key, and registers the object for deletion in case the copy fails.
    async fn reserve_copy(&self, owned: &TenantBlob) -> Result<StrayObject, Error> {
        let id = BlobId::from_uuid(self.app.ids.uuid());
        let day = self.app.clock.now().date_naive();
        let key = owned.blob.key.with_new_blob(day, id).map_err(Error::internal)?;
        let replica = Replica { provider: self.store.provider().to_owned(), key };
        // It may have parts.
        let copy = stray_copy(owned.tenant, replica, true);
        let mut tx = self.app.db.system_tx().await?;
        stray_objects::insert(&mut tx, &copy, COPY_HOURS).await?;
        tx.commit().await?;
        Ok(copy)
    }

    /// Makes the blob reference its copy. Discards the copy if the claim is lost, or if the blob has another copy by now
    /// or is being deleted.
    async fn record_copy(&self, claimed: &ClaimedBlob, copy: &StrayObject) -> Result<ItemOutcome, Error> {
        let ClaimedBlob { claim, movable } = claimed;
        let TenantBlob { tenant, blob } = &movable.tenant_blob;
        let mut tx = self.app.db.system_tx().await?;
        let is_recorded = blob_replicas::record(&mut tx, *tenant, blob.id, &copy.provider, &copy.key).await?
            && blob_claims::finish(&mut tx, *claim).await?
            && stray_objects::adopt(&mut tx, copy).await?;
        if is_recorded {
            tx.commit().await?;
            self.app.metrics.count_replicated(self.store.provider());
            return Ok(ItemOutcome::Done);
        }
        drop(tx);
        self.discard_copy(copy).await?;
        release(self.app, *claim).await?;
        Ok(ItemOutcome::Skipped)
    }

    async fn discard_copy(&self, copy: &StrayObject) -> Result<(), Error> {
        let mut tx = self.app.db.system_tx().await?;
        stray_objects::make_due(&mut tx, copy).await?;
        Ok(tx.commit().await?)
    }
}
