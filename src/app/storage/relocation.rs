//! Gives a blob another object of the same bytes, while the service runs: what `storage move` and the classes of storage have in
//! common.
//!
//! The object is made under a fresh key, compared with the blob's row, and then one compare-and-set points the row to it. What
//! is interrupted leaves the row as it was. The original stays for the undelete window, and for an hour at least: for readers
//! that have it open, and for a database that is restored to an hour ago. Every object without a blob, the copy before and the
//! original after, has its row in `stray_objects`: a crash at any point leaves nothing that nobody removes.

use crate::{
    app::{Error, integrity::fsck::sums},
    db::{
        Database,
        audit_entries::{self, AuditAction, AuditEntry},
        blobs::{self, Blob, TenantBlob},
        storage_classes,
        stray_objects::{self, StrayObject},
    },
    domain::{
        clock::{Clock, IdSource},
        ids::BlobId,
        object_key::ObjectKey,
        storage_class::StorageClass,
    },
    storage::ObjectStorage,
};

/// How long a copy may take; one that takes longer is removed and made again.
const COPY_HOURS: u32 = 24;

/// How long an original stays at least, for downloads that have it open.
const READERS_HOURS: u32 = 1;

/// What to relocate with.
pub(super) struct Relocation<'a> {
    pub(super) db: &'a Database,
    /// Tells the day of new keys.
    pub(super) clock: &'a dyn Clock,
    /// Makes new keys.
    pub(super) ids: &'a dyn IdSource,
    /// How long originals stay, in hours.
    pub(super) undelete_window_hours: u32,
}

/// What became of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has the new object.
    Moved,
    /// Something else happened to it meanwhile, and it has not.
    Overtaken,
}

/// Which class the new object is in, and whether that still matters when the row is pointed to it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Class {
    /// The blob goes elsewhere and keeps its class as far as it can.
    Kept(StorageClass),
    /// The blob moves for the sake of its class: it stays where it is unless the files that stand on it still want that.
    Wanted(StorageClass),
}

impl Class {
    fn of_object(self) -> StorageClass {
        match self {
            Self::Kept(class) | Self::Wanted(class) => class,
        }
    }
}

impl Relocation<'_> {
    /// Makes room for a new object: nobody has used its key, and it is removed if nothing comes of it.
    pub(super) async fn begin(
        &self,
        owned: &TenantBlob,
        to: &dyn ObjectStorage,
        may_be_unfinished: bool,
    ) -> Result<StrayObject, Error> {
        let id = BlobId::from_uuid(self.ids.uuid());
        let key = owned.blob.key.anew(self.clock.now().date_naive(), id).map_err(Error::internal)?;
        let provider = to.provider().to_owned();
        let target = StrayObject { tenant: owned.tenant, provider, key, may_be_unfinished };
        let mut tx = self.db.system_tx().await?;
        stray_objects::insert(&mut tx, &target, COPY_HOURS).await?;
        tx.commit().await?;
        Ok(target)
    }

    /// Points the blob to its new object when that was made and compared, and removes it otherwise.
    pub(super) async fn conclude(
        &self,
        owned: &TenantBlob,
        target: &StrayObject,
        class: Class,
        made: Result<(), Error>,
    ) -> Result<Outcome, Error> {
        match made {
            Ok(()) if self.point_to(owned, target, class).await? => Ok(Outcome::Moved),
            Ok(()) => self.discard(target).await.map(|()| Outcome::Overtaken),
            Err(error) => {
                // Where even this fails, the copy is removed when its time is over.
                if let Err(second) = self.discard(target).await {
                    tracing::warn!(key = %target.key, error = %second, "discard copy");
                }
                Err(error)
            }
        }
    }

    /// Points the row to the copy, and the original out for removal: in one transaction, or not at all.
    async fn point_to(&self, owned: &TenantBlob, target: &StrayObject, class: Class) -> Result<bool, Error> {
        let (tenant, blob) = (owned.tenant, &owned.blob);
        let place = (target.provider.as_str(), &target.key);
        let mut tx = self.db.system_tx().await?;
        let is_ours = stray_objects::adopt(&mut tx, target).await?
            && blobs::relocate(&mut tx, owned, place, class.of_object()).await?;
        if !is_ours {
            return Ok(false);
        }
        // Behind the row's lock, which whoever looks at the classes of a file waits for: a file that is archived or taken out
        // later has a job that sees what is written here.
        if let Class::Wanted(class) = class
            && storage_classes::wanted(&mut tx, tenant, blob.id).await? != Some(class)
        {
            return Ok(false);
        }
        let original = StrayObject {
            tenant,
            provider: blob.provider.clone(),
            key: blob.key.clone(),
            may_be_unfinished: false,
        };
        let hours = self.undelete_window_hours.max(READERS_HOURS);
        stray_objects::insert(&mut tx, &original, hours).await?;
        let details = serde_json::json!({
            "blob": blob.id, "from": blob.provider, "to": target.provider, "storage_class": class.of_object(),
        });
        let entry = AuditEntry::system(AuditAction::StorageMove, details);
        audit_entries::insert_for(&mut tx, tenant, &[entry]).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn discard(&self, target: &StrayObject) -> Result<(), Error> {
        let mut tx = self.db.system_tx().await?;
        stray_objects::discard(&mut tx, target).await?;
        Ok(tx.commit().await?)
    }
}

/// Reads a new object, all of it, and compares it with what the row says.
pub(super) async fn read_back(store: &dyn ObjectStorage, key: &ObjectKey, blob: &Blob) -> Result<(), Error> {
    let found = sums(store, key, blob.size_bytes).await?;
    if found.sha256 == blob.sha256 { Ok(()) } else { Err(Error::ObjectDamaged) }
}
