//! Writes the first marker of a store: of a new one, and of one that a version without markers used.

use super::{StoreOwners, recorded::Recorded};
use crate::{
    app::Error,
    db::sweep_candidates::{self, Ownership, SweepCandidate},
    domain::{
        object_key::listing_prefix,
        store_owner::{OwnerBeat, OwnerMismatch},
    },
    storage::{MarkerWrite, ObjectStorage, StorageErrorKind},
};

/// The number of objects in a page.
const PAGE_OBJECTS: usize = 1_000;
/// The number of pages without an object of this prefix after which the store counts as new. Another
/// installation that shares the store may have many objects with longer prefixes.
const PAGES_MAX: usize = 100;

/// The result of an attempt to write the first marker.
pub(super) enum Claim {
    Written,
    /// The store does not belong to this database.
    Refused(OwnerMismatch),
    /// Another process or database wrote a marker in the meantime.
    Lost,
}

impl StoreOwners {
    /// Writes the first marker, if the store has no objects, or if the database knows most of them.
    pub(super) async fn claim_store(&self, store: &dyn ObjectStorage) -> Result<Claim, Error> {
        let provider = store.provider();
        let Recorded { database, newest, .. } = self.read_recorded(provider, None).await?;
        let objects = self.list_first_objects(store).await?;
        if !objects.is_empty() {
            // A beat after the first one means that a marker was written, so it was deleted since. The same
            // row of a copy proves nothing.
            if newest.is_some_and(|newest| newest.beat > 1) {
                return Ok(Claim::Refused(OwnerMismatch::MarkerMissing));
            }
            if !self.knows_most(provider, &objects).await? {
                return Ok(Claim::Refused(OwnerMismatch::UnknownObjects));
            }
        }
        let beat = match newest {
            // An earlier attempt was interrupted.
            Some(newest) if newest.beat == 1 => newest,
            newest => {
                let epoch = newest.map_or(0, |newest| newest.epoch).saturating_add(1);
                let beat = OwnerBeat { epoch, beat: 1, token: self.0.parts.ids.uuid() };
                if !self.record_beat(provider, &beat).await? {
                    return Ok(Claim::Lost);
                }
                beat
            }
        };
        match self.write_marker(store, database, beat, MarkerWrite::Create).await {
            Ok(_) => Ok(Claim::Written),
            Err(error) if error.kind == StorageErrorKind::AlreadyExists => Ok(Claim::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the first objects with the prefix of this installation.
    async fn list_first_objects(&self, store: &dyn ObjectStorage) -> Result<Vec<SweepCandidate>, Error> {
        let key_prefix = &self.0.parts.key_prefix;
        let prefix = listing_prefix(key_prefix);
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let page = store.list(&prefix, after.as_ref(), PAGE_OBJECTS).await?;
            after = page.objects.last().map(|object| object.key.clone());
            let ours = page.objects.into_iter().filter(|object| object.key.prefix() == key_prefix);
            let ours: Vec<SweepCandidate> = ours
                .map(|object| SweepCandidate {
                    key: object.key,
                    multipart_id: None,
                    size_bytes: object.size_bytes,
                })
                .collect();
            if !ours.is_empty() || page.is_last || after.is_none() {
                return Ok(ours);
            }
        }
        Ok(Vec::new())
    }

    /// Returns whether at least half of the objects have a row in this database.
    async fn knows_most(&self, provider: &str, objects: &[SweepCandidate]) -> Result<bool, Error> {
        let mut tx = self.0.parts.db.system_tx().await?;
        let ownerships = sweep_candidates::check_ownership(&mut tx, provider, objects).await?;
        tx.commit().await?;
        let known = ownerships.iter().filter(|ownership| **ownership == Ownership::Owned).count();
        Ok(known * 2 >= objects.len())
    }
}
