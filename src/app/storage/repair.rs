//! Repairs missing and damaged blobs from their verified copy.
//!
//! Scrubbing, a download or `fsck --repair` marks the versions of a damaged blob. The repair finds them by their state.
//! It writes the copy to a new object with the provider of the original, reads it back, and switches the row to it
//! (`relocation`). Nothing is overwritten, so readers of the old object are not disturbed, an object lock does not
//! matter, and after a crash either object is complete. The versions then change back to AVAILABLE.

use super::{
    copy::BlobCopy,
    relocation::{Relocation, RelocationOutcome, TargetClass, hold_reservation},
};
use crate::{
    app::{
        App, Error, RoundReport,
        blob_work::{claim_blob, release, work_on_claimed},
        integrity::damage::is_intact,
        rounds::{DueItems, ItemFields, ItemOutcome, RoundStore, run_round_in_store},
    },
    db::{
        blob_claims::{self, BlobClaim, BlobWork},
        blob_replicas::{self, RepairableBlob},
        blob_turns::{self, WaitingBlob},
        blobs::{Blob, TenantBlob},
        content_states,
    },
    domain::ids::TenantId,
    storage::{ObjectStorage, Progress, PutOptions, StorageErrorKind},
};

/// Repairs blobs of a store whose versions are marked missing or damaged and that have a copy.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable, and `ProviderUnknown` if the provider is not
/// configured.
pub async fn repair_blobs_in(app: &App, provider: &str, progress: &Progress) -> Result<RoundReport, Error> {
    let store = progress.watch(app.background_stores.get(provider)?);
    let rotation = &app.rotations.repaired_blobs;
    let repairable = |_| RepairableBlobs { app, store: store.as_ref(), progress };
    run_round_in_store(app, provider, rotation, repairable).await
}

/// The blobs of one store that can be repaired, by turns of tenants.
struct RepairableBlobs<'a> {
    app: &'a App,
    store: &'a dyn ObjectStorage,
    progress: &'a Progress,
}

/// A blob that this process has claimed for its repair.
struct ClaimedBlob {
    claim: BlobClaim,
    repairable: RepairableBlob,
}

impl DueItems for RepairableBlobs<'_> {
    type Item = WaitingBlob;
    type Position = TenantId;

    const ACTION: &'static str = "repair blob";
    const PAGE_ITEMS: usize = 20;
    const NEEDS_DELETIONS: bool = false;

    fn round_store(&self) -> Option<RoundStore<'_>> {
        RoundStore::of(self.app, self.store)
    }

    async fn list_page(&self, after: Option<TenantId>, limit: i64) -> Result<Vec<WaitingBlob>, Error> {
        // Blobs whose copy cannot be read must not keep others from being repaired.
        let stores = &self.app.background_stores;
        let copies = stores.iter().map(|store| store.provider());
        let excluded: Vec<&str> = copies.filter(|provider| stores.rejects_calls(provider)).collect();
        let (provider, limit) = (self.store.provider(), usize::try_from(limit).unwrap_or_default());
        let mut tx = self.app.db.system_tx().await?;
        let lost = blob_turns::list_repairable(&mut tx, provider, &excluded, after, limit).await?;
        tx.commit().await?;
        Ok(lost)
    }

    fn position(item: &WaitingBlob) -> TenantId {
        item.turn
    }

    fn fields<'a>(&self, item: &'a WaitingBlob) -> ItemFields<'a> {
        ItemFields { key: Some(&item.key), ..ItemFields::new(item.tenant) }
    }

    async fn process(&self, item: &WaitingBlob) -> Result<ItemOutcome, Error> {
        let Some(claimed) = self.claim(item).await? else { return Ok(ItemOutcome::Skipped) };
        work_on_claimed(self.app, claimed.claim, self.progress, self.repair(&claimed)).await
    }
}

impl RepairableBlobs<'_> {
    /// Claims a blob when its turn has come, so that a process that ends leaves one claim at most. Returns `None` if
    /// another process has claimed or repaired it since it was listed, or if its copy cannot be read now.
    async fn claim(&self, item: &WaitingBlob) -> Result<Option<ClaimedBlob>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let claim = claim_blob(self.app, &mut tx, BlobWork::Repair, item.tenant, item.blob).await?;
        let Some(claim) = claim else { return Ok(None) };
        let found = blob_replicas::find_repairable(&mut tx, item.tenant, item.blob, &item.provider).await?;
        // Without a commit, nothing is claimed.
        let Some(repairable) = found else { return Ok(None) };
        if self.app.background_stores.rejects_calls(&repairable.replica.provider) {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(ClaimedBlob { claim, repairable }))
    }

    async fn repair(&self, claimed: &ClaimedBlob) -> Result<ItemOutcome, Error> {
        let ClaimedBlob { claim, repairable } = claimed;
        let TenantBlob { tenant, blob } = &repairable.movable.tenant_blob;
        let mut is_replaced = false;
        // After a crash between the switch and the change of the versions, or a repair by an operator.
        if !self.is_original_intact(blob).await? {
            match self.replace_original(repairable).await? {
                RelocationOutcome::Moved => {
                    // Counted here, because the next attempt after a crash finds the new object intact.
                    self.app.metrics.count_repaired(self.store.provider());
                    is_replaced = true;
                }
                RelocationOutcome::Superseded => {
                    release(self.app, *claim).await?;
                    return Ok(ItemOutcome::Skipped);
                }
            }
        }
        let mut tx = self.app.db.system_tx().await?;
        let version_count = content_states::mark_repaired(&mut tx, *tenant, blob.id).await?;
        // Another process repairs the blob if the claim is lost.
        if !blob_claims::finish(&mut tx, *claim).await? {
            return Ok(ItemOutcome::Skipped);
        }
        tx.commit().await?;
        let blob = blob.id;
        if is_replaced {
            tracing::warn!(%tenant, %blob, versions = version_count, "repaired a blob from its copy");
        } else {
            tracing::warn!(
                %tenant, %blob, versions = version_count,
                "found the object of a damaged blob intact, and changed its versions back to AVAILABLE"
            );
        }
        Ok(ItemOutcome::Done)
    }

    async fn is_original_intact(&self, blob: &Blob) -> Result<bool, Error> {
        match is_intact(self.store, blob).await {
            Ok(found) => Ok(found == Some(true)),
            Err(error) => match error.kind {
                StorageErrorKind::NotFound | StorageErrorKind::InvalidInput | StorageErrorKind::Damaged => {
                    Ok(false)
                }
                _ => Err(error.into()),
            },
        }
    }

    /// Copies the copy, verifies it, and switches the blob to the result.
    async fn replace_original(&self, item: &RepairableBlob) -> Result<RelocationOutcome, Error> {
        let owned = &item.movable.tenant_blob;
        let TenantBlob { tenant, blob } = owned;
        let from = self.progress.watch(self.app.background_stores.get(&item.replica.provider)?);
        let copy =
            Blob { provider: item.replica.provider.clone(), key: item.replica.key.clone(), ..blob.clone() };
        let part_size_bytes = self.app.limits.uploads.part_size_bytes as u64;
        let relocation = Relocation::by(self.app);
        let target = relocation.reserve_target(owned, self.store, blob.size_bytes > part_size_bytes).await?;
        let options =
            PutOptions::for_blob(*tenant, item.movable.created_by.as_deref()).with_class(blob.class);
        let copy = BlobCopy { blob: &copy, from: from.as_ref(), to: self.store, key: &target.key, options };
        let copying = copy.copy_and_verify(part_size_bytes);
        let copied = Box::pin(hold_reservation(&self.app.db, &target, copying)).await;
        relocation.finish(owned, &target, TargetClass::Preserved(blob.class), copied).await
    }
}
