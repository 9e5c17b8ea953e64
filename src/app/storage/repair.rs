//! Repairs missing and damaged blobs from their verified copy.
//!
//! Scrubbing, a download or `fsck --repair` marks the versions of a damaged blob. The repair finds them by their state.
//! It writes the copy to a new object with the provider of the original, reads it back, and switches the row to it
//! (`relocation`). Nothing is overwritten, so readers of the old object are not disturbed, an object lock does not
//! matter, and after a crash either object is complete. The versions then change back to AVAILABLE.

use super::{
    copy::BlobCopy,
    relocation::{Relocation, RelocationOutcome, TargetClass},
};
use crate::{
    app::{
        App, Error, RoundReport,
        blob_work::{claim_blobs, release, work_on_claimed},
        integrity::damage::is_intact,
        rounds::{DueItems, ItemFields, ItemOutcome, RoundStore, run_round_in_store},
    },
    db::{
        blob_claims::{self, BlobClaim, BlobWork},
        blob_replicas::{self, RepairableBlob},
        blobs::{Blob, TenantBlob},
        content_states,
    },
    storage::{ObjectStorage, PutOptions, StorageErrorKind},
};

/// Repairs blobs of a store whose versions are marked missing or damaged and that have a copy.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable, and `ProviderUnknown` if the provider is not
/// configured.
pub async fn repair_blobs_in(app: &App, provider: &str) -> Result<RoundReport, Error> {
    let rotation = &app.rotations.repaired_blobs;
    run_round_in_store(app, provider, rotation, |store| RepairableBlobs { app, store }).await
}

/// The blobs of one store that can be repaired.
struct RepairableBlobs<'a> {
    app: &'a App,
    store: &'a dyn ObjectStorage,
}

impl DueItems for RepairableBlobs<'_> {
    type Item = RepairableBlob;
    type Position = ();

    const ACTION: &'static str = "repair blob";
    const PAGE_ITEMS: usize = 20;
    const NEEDS_DELETIONS: bool = false;

    fn round_store(&self) -> Option<RoundStore<'_>> {
        RoundStore::of(self.app, self.store)
    }

    /// Claims the next blobs. The claims replace the position.
    async fn list_page(&self, _after: Option<()>, limit: i64) -> Result<Vec<RepairableBlob>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let lost = blob_replicas::list_repairable(&mut tx, self.store.provider(), limit).await?;
        let lost = claim_blobs(self.app, &mut tx, BlobWork::Repair, lost, claim_of).await?;
        tx.commit().await?;
        Ok(lost)
    }

    fn position(_item: &RepairableBlob) {}

    fn fields<'a>(&self, item: &'a RepairableBlob) -> ItemFields<'a> {
        ItemFields::of_blob(&item.movable.tenant_blob)
    }

    async fn process(&self, item: &RepairableBlob) -> Result<ItemOutcome, Error> {
        work_on_claimed(self.app, claim_of(item), self.repair(item)).await
    }
}

fn claim_of(item: &RepairableBlob) -> BlobClaim {
    let TenantBlob { tenant, blob } = &item.movable.tenant_blob;
    BlobClaim { tenant: *tenant, blob: blob.id, work: BlobWork::Repair }
}

impl RepairableBlobs<'_> {
    async fn repair(&self, item: &RepairableBlob) -> Result<ItemOutcome, Error> {
        let TenantBlob { tenant, blob } = &item.movable.tenant_blob;
        // After a crash between the switch and the change of the versions, or a repair by an operator.
        if !self.is_original_intact(blob).await? {
            match self.replace_original(item).await? {
                RelocationOutcome::Moved => {}
                RelocationOutcome::Superseded => {
                    release(self.app, claim_of(item)).await?;
                    return Ok(ItemOutcome::Skipped);
                }
            }
        }
        let mut tx = self.app.db.system_tx().await?;
        let version_count = content_states::mark_repaired(&mut tx, *tenant, blob.id).await?;
        blob_claims::finish(&mut tx, claim_of(item)).await?;
        tx.commit().await?;
        tracing::warn!(%tenant, blob = %blob.id, versions = version_count, "repaired a blob from its copy");
        self.app.metrics.count_repaired(self.store.provider());
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
        let from = self.app.background_stores.get(&item.replica.provider)?;
        let copy =
            Blob { provider: item.replica.provider.clone(), key: item.replica.key.clone(), ..blob.clone() };
        let part_size_bytes = self.app.limits.uploads.part_size_bytes as u64;
        let relocation = Relocation::by(self.app);
        let target = relocation.reserve_target(owned, self.store, blob.size_bytes > part_size_bytes).await?;
        let options =
            PutOptions::for_blob(*tenant, item.movable.created_by.as_deref()).with_class(blob.class);
        let copying =
            BlobCopy { blob: &copy, from: from.as_ref(), to: self.store, key: &target.key, options };
        let copied = Box::pin(copying.copy_and_verify(part_size_bytes)).await;
        relocation.finish(owned, &target, TargetClass::Preserved(blob.class), copied).await
    }
}
