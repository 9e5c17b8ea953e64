//! Replaces the object of a blob with a copy while the service is running. Used to move blobs between
//! providers and between storage classes.
//!
//! The copy is created under a new key and verified against the blob's row; then one compare-and-set switches
//! the row to it. An interrupted relocation leaves the row unchanged. The original is deleted after the blob
//! deletion delay, and after at least an hour, for downloads that have it open and for a database that is
//! restored to an hour ago. Every object without a blob (the copy before the switch, the original after it)
//! has a row in `stray_objects`, so that a crash at any point leaves no object that is never deleted. Its bytes count
//! as pending deletion.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    app::{App, Error, integrity::read_object::read_object},
    db::{
        Database,
        audit_entries::{self, AuditAction, AuditEntry},
        blob_replicas,
        blobs::{self, Blob, TenantBlob},
        storage_classes,
        stray_objects::{self, StrayObject},
    },
    domain::{
        clock::{Clock, IdSource},
        ids::BlobId,
        object_key::ObjectKey,
        object_label::{copy_entries, label_entries},
        storage_class::StorageClass,
    },
    storage::{ObjectStorage, PutOptions},
};

/// The time until the deletion of a reserved object, in hours. The deletion is postponed while the copy goes on.
pub(super) const COPY_HOURS: u32 = 24;

/// The interval at which the deletion is postponed.
const POSTPONEMENT_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);

/// The minimum time until the deletion of an original, in hours, for downloads that have it open.
pub(in crate::app) const READERS_HOURS: u32 = 1;

/// The dependencies of a relocation.
pub(super) struct Relocation<'a> {
    pub(super) db: &'a Database,
    /// Used for the day in new keys.
    pub(super) clock: &'a dyn Clock,
    /// Used for the ids in new keys.
    pub(super) ids: &'a dyn IdSource,
    /// The time until the deletion of originals, in hours.
    pub(super) blob_deletion_delay_hours: u32,
}

/// The outcome of a relocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelocationOutcome {
    /// The blob has the new object.
    Moved,
    /// The blob changed during the copy and keeps its object.
    Superseded,
}

/// The storage class of the new object, and whether it is checked again before the switch.
#[derive(Debug, Clone, Copy)]
pub(super) enum TargetClass {
    /// The blob moves to another provider and keeps its class if possible.
    Preserved(StorageClass),
    /// The blob moves to this class. It is not switched if its files no longer request the class.
    Requested(StorageClass),
}

impl TargetClass {
    fn class(self) -> StorageClass {
        match self {
            Self::Preserved(class) | Self::Requested(class) => class,
        }
    }
}

impl<'a> Relocation<'a> {
    /// Returns the dependencies of relocations by background work.
    pub(super) fn by(app: &'a App) -> Self {
        Self {
            db: &app.db,
            clock: app.clock.as_ref(),
            ids: app.ids.as_ref(),
            blob_deletion_delay_hours: deletion_delay_hours(app),
        }
    }

    /// Reserves an unused key for the new object, and registers the object for deletion in case the
    /// relocation fails.
    pub(super) async fn reserve_target(
        &self,
        owned: &TenantBlob,
        to: &dyn ObjectStorage,
        may_be_unfinished: bool,
    ) -> Result<StrayObject, Error> {
        let id = BlobId::from_uuid(self.ids.uuid());
        let key = owned.blob.key.with_new_blob(self.clock.now().date_naive(), id).map_err(Error::internal)?;
        let provider = to.provider().to_owned();
        let size_bytes = recorded_size(&owned.blob);
        let target = StrayObject { tenant: owned.tenant, provider, key, may_be_unfinished, size_bytes };
        let mut tx = self.db.system_tx().await?;
        stray_objects::insert(&mut tx, &target, COPY_HOURS).await?;
        tx.commit().await?;
        Ok(target)
    }

    /// Switches the blob to its new object if the copy succeeded, and discards the object otherwise.
    pub(super) async fn finish(
        &self,
        owned: &TenantBlob,
        target: &StrayObject,
        target_class: TargetClass,
        copied: Result<(), Error>,
    ) -> Result<RelocationOutcome, Error> {
        match copied {
            Ok(()) if self.switch_blob(owned, target, target_class).await? => Ok(RelocationOutcome::Moved),
            Ok(()) => self.discard_target(target).await.map(|()| RelocationOutcome::Superseded),
            Err(error) => {
                // If this fails too, the copy is deleted after `COPY_HOURS`.
                if let Err(second) = self.discard_target(target).await {
                    tracing::warn!(key = %target.key, error = %second, "failed to discard copy");
                }
                Err(error)
            }
        }
    }

    /// Switches the row to the copy and registers the original for deletion, in one transaction. Returns
    /// whether it did.
    async fn switch_blob(
        &self,
        owned: &TenantBlob,
        target: &StrayObject,
        target_class: TargetClass,
    ) -> Result<bool, Error> {
        let (tenant, blob) = (owned.tenant, &owned.blob);
        let mut tx = self.db.system_tx().await?;
        if !blobs::relocate(&mut tx, owned, &target.provider, &target.key, target_class.class()).await? {
            return Ok(false);
        }
        // Checked under the lock of the row. The job of a file that is archived or unarchived later waits for
        // this lock and therefore sees this change.
        if let TargetClass::Requested(class) = target_class
            && storage_classes::get_target_class(&mut tx, tenant, blob.id).await? != Some(class)
        {
            return Ok(false);
        }
        let original = StrayObject {
            tenant,
            provider: blob.provider.clone(),
            key: blob.key.clone(),
            may_be_unfinished: false,
            size_bytes: recorded_size(blob),
        };
        let details = serde_json::json!({
            "blob": blob.id, "from": blob.provider, "to": target.provider, "storage_class": target_class.class(),
        });
        let entry = AuditEntry::system(AuditAction::StorageMove, details);
        audit_entries::insert_for(&mut tx, tenant, &[entry]).await?;
        // A copy must not be with the provider of its original. The blob gets another one.
        if let Some(replica) = blob_replicas::find_at(&mut tx, tenant, blob.id, &target.provider).await? {
            blob_replicas::remove(&mut tx, tenant, blob.id, &replica, READERS_HOURS).await?;
        }
        // These lock the row of the quota, which is locked last.
        if !stray_objects::adopt(&mut tx, target).await? {
            return Ok(false);
        }
        let hours = self.blob_deletion_delay_hours.max(READERS_HOURS);
        stray_objects::insert(&mut tx, &original, hours).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn discard_target(&self, target: &StrayObject) -> Result<(), Error> {
        let mut tx = self.db.system_tx().await?;
        stray_objects::make_due(&mut tx, target).await?;
        Ok(tx.commit().await?)
    }
}

/// Returns the time until the deletion of replaced objects, in hours.
pub(in crate::app) fn deletion_delay_hours(app: &App) -> u32 {
    u32::try_from(app.limits.retention.blob_deletion_delay_hours).unwrap_or(u32::MAX)
}

/// Returns the size of a blob as its column stores it.
fn recorded_size(blob: &Blob) -> i64 {
    i64::try_from(blob.size_bytes).unwrap_or(i64::MAX)
}

/// Returns the options of a copy, with the label of the original and the id of the blob.
pub(super) async fn with_label_of(
    from: &dyn ObjectStorage,
    blob: &Blob,
    options: PutOptions,
) -> Result<PutOptions, Error> {
    let mut metadata = label_entries(from.read_metadata(&blob.key).await?);
    metadata.extend(copy_entries(blob.id, options.class));
    Ok(options.with_metadata(metadata))
}

/// Reads the whole new object and compares it with the row.
///
/// # Errors
/// Returns `ObjectDamaged` if the SHA-256 differs.
pub(super) async fn verify_object(
    store: &dyn ObjectStorage,
    key: &ObjectKey,
    blob: &Blob,
) -> Result<(), Error> {
    let found = read_object(store, key, blob.size_bytes).await?.checksums.hashes;
    let is_recorded = blob.hashes.is_some_and(|recorded| recorded.sha256 == found.sha256);
    if is_recorded { Ok(()) } else { Err(Error::ObjectDamaged) }
}

/// Copies bytes to a reserved object, and postpones its deletion until the copy ends. A copy may take any time.
pub(super) async fn hold_reservation<T>(
    db: &Database,
    reserved: &StrayObject,
    copying: impl Future<Output = T>,
) -> T {
    repeat_during(POSTPONEMENT_INTERVAL, || postpone_deletion(db, reserved), copying).await
}

async fn postpone_deletion(db: &Database, reserved: &StrayObject) {
    let postponed = async {
        let mut tx = db.system_tx().await?;
        stray_objects::postpone(&mut tx, reserved, COPY_HOURS).await?;
        tx.commit().await
    };
    if let Err(error) = postponed.await {
        tracing::warn!(key = %reserved.key, %error, "failed to postpone the deletion of a copy in progress");
    }
}

/// Runs work, and repeats an action at an interval until the work ends.
async fn repeat_during<T, A: Future<Output = ()>>(
    interval: Duration,
    action: impl Fn() -> A,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        // The action must not stop the work, which may hold what it waits for.
        let acting = async {
            sleep(interval).await;
            action().await;
        };
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = acting => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// The clock is paused and advances to the next timer when all tasks wait, so no time passes.
    #[tokio::test(start_paused = true)]
    async fn deletion_is_postponed_until_the_copy_ends() {
        let postponed = AtomicU32::new(0);
        let postpone = || async {
            postponed.fetch_add(1, Ordering::Relaxed);
        };
        let days = Duration::from_secs(100 * 60 * 60);
        repeat_during(POSTPONEMENT_INTERVAL, postpone, sleep(days)).await;
        assert_eq!(postponed.load(Ordering::Relaxed), 16);
        assert!(POSTPONEMENT_INTERVAL.as_secs() < u64::from(COPY_HOURS) * 60 * 60 / 2, "one may fail");
    }
}
