//! Takes a store over, for `strongroom storage adopt`. The former owner finds the marker of a higher epoch,
//! and stops to write and to delete.
//!
//! Objects that were stored since the last marker that this database knew are not in its rows. The adoption
//! records this time, and nothing is deleted from the store until an operator decides about them (`app/restore`).

use super::{OwnerState, StoreOwners, recorded::Recorded};
use crate::{
    app::Error,
    db::{lost_hours, store_beats},
    domain::{
        clock::Timestamp,
        lost_hours::LostHours,
        object_key::listing_prefix,
        store_owner::{DatabaseIdentity, OwnerBeat, OwnerMarker, OwnerMismatch, Verdict},
    },
    storage::{MarkerWrite, ObjectStorage},
};

/// The owner of a store, as seen by this database.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OwnerReport {
    pub provider: String,
    /// Whether the store belongs to this database, and deletions do not wait for a confirmation.
    pub is_owner: bool,
    /// Why the store does not belong to this database.
    pub mismatch: Option<OwnerMismatch>,
    /// The marker in the store.
    pub owner: Option<OwnerMarker>,
    /// The database that was compared with the marker.
    pub database: DatabaseIdentity,
}

impl StoreOwners {
    /// Returns the owner of a store. Writes nothing.
    ///
    /// # Errors
    /// Returns an error if the provider is not configured, or if the store or the database is unavailable.
    pub async fn inspect_owner(&self, provider: &str) -> Result<OwnerReport, Error> {
        let store = &self.slot(provider)?.store;
        let bytes = store.read_marker(&self.0.parts.key_prefix).await?;
        let owner = bytes.as_deref().and_then(OwnerMarker::parse);
        let beat = owner.as_ref().map(|marker| &marker.beat);
        let Recorded { database, newest, is_recorded, .. } = self.read_recorded(provider, beat).await?;
        let (is_owner, mismatch) = match &owner {
            Some(marker) => match marker.judge(&database, newest.as_ref(), is_recorded) {
                Verdict::Owned => (true, None),
                Verdict::Unconfirmed => (false, None),
                Verdict::NotOwned(mismatch) => (false, Some(mismatch)),
            },
            None => (false, bytes.is_some().then_some(OwnerMismatch::MarkerUnreadable)),
        };
        Ok(OwnerReport { provider: provider.to_owned(), is_owner, mismatch, owner, database })
    }

    /// Makes this database the owner of a store, whatever the store contains. Returns the new marker.
    ///
    /// # Errors
    /// Returns an error if the provider is not configured, if the store or the database is
    /// unavailable, or if another process wrote a marker at the same time. Repeat the call then.
    pub async fn adopt_store(&self, provider: &str) -> Result<OwnerMarker, Error> {
        let store = &self.slot(provider)?.store;
        let former = store.read_marker(&self.0.parts.key_prefix).await?;
        let former = former.as_deref().and_then(OwnerMarker::parse);
        let Recorded { database, newest, .. } = self.read_recorded(provider, None).await?;
        // Before the beat, whose time would hide that of the last marker from the next attempt.
        if !self.is_known_owner(provider, former.as_ref()).await? {
            self.record_lost_hours(store.as_ref(), former.as_ref()).await?;
        }
        let own = newest.map(|newest| newest.epoch);
        let former = former.map(|marker| marker.beat.epoch);
        let epoch = former.into_iter().chain(own).max().unwrap_or(0).saturating_add(1);
        let beat = OwnerBeat { epoch, beat: 1, token: self.0.parts.ids.uuid() };
        if !self.record_beat(provider, &beat).await? {
            return Err(Error::internal("another process is taking the store over; try again"));
        }
        let marker = self.write_marker(store.as_ref(), database, beat, MarkerWrite::Replace).await?;
        match self.check_store(provider).await? {
            OwnerState::Owned => Ok(marker),
            _ => Err(Error::internal("the former owner renewed its marker at the same time; try again")),
        }
    }

    /// Returns whether a marker belongs to this database. It does even if it is unconfirmed after the server restarted.
    async fn is_known_owner(&self, provider: &str, marker: Option<&OwnerMarker>) -> Result<bool, Error> {
        let Some(marker) = marker else { return Ok(false) };
        let Recorded { database, newest, is_recorded, .. } =
            self.read_recorded(provider, Some(&marker.beat)).await?;
        Ok(match marker.judge(&database, newest.as_ref(), is_recorded) {
            Verdict::Owned | Verdict::Unconfirmed => true,
            Verdict::NotOwned(_) => false,
        })
    }

    /// Records the time since the last marker that this database knew. A database that never wrote one knows
    /// nothing about the objects, so the time then has no beginning. A store without objects lost none.
    async fn record_lost_hours(
        &self,
        store: &dyn ObjectStorage,
        former: Option<&OwnerMarker>,
    ) -> Result<(), Error> {
        let first = store.list(&listing_prefix(&self.0.parts.key_prefix), None, 1).await?;
        if first.objects.is_empty() && first.is_last {
            return Ok(());
        }
        let providers = self.list_sharing_providers(store.provider(), former).await;
        let end_time = self.0.parts.clock.now();
        let mut start_time = Timestamp::UNIX_EPOCH;
        for provider in &providers {
            start_time = start_time.max(self.find_snapshot_time(provider).await?.unwrap_or(start_time));
        }
        let mut tx = self.0.parts.db.system_tx().await?;
        for provider in providers {
            let id = self.0.parts.ids.uuid();
            let start_time = start_time.min(end_time);
            let lost = LostHours { id, provider, start_time, end_time, decide_time: None };
            lost_hours::insert(&mut tx, &lost).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Returns the names of a store: several providers with the same marker share one store, and each is swept. A
    /// provider that is unreachable may be one of them.
    async fn list_sharing_providers(&self, provider: &str, marker: Option<&OwnerMarker>) -> Vec<String> {
        let mut sharing = vec![provider.to_owned()];
        for (other, slot) in self.0.slots.iter().filter(|(other, _)| other.as_str() != provider) {
            let is_shared = match slot.store.read_marker(&self.0.parts.key_prefix).await {
                Ok(bytes) => {
                    let found = bytes.as_deref().and_then(OwnerMarker::parse);
                    found.is_some() && found.as_ref() == marker
                }
                Err(error) => {
                    tracing::warn!(provider = other, %error, "failed to compare the owner markers of stores");
                    true
                }
            };
            if is_shared {
                sharing.push(other.clone());
            }
        }
        sharing
    }

    /// Returns the time of the last marker of a store that this database knows.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable.
    pub async fn find_snapshot_time(&self, provider: &str) -> Result<Option<Timestamp>, Error> {
        let mut tx = self.0.parts.db.system_tx().await?;
        let time = store_beats::find_newest_time(&mut tx, provider).await?;
        tx.commit().await?;
        Ok(time)
    }
}
