//! Takes a store over, for `strongroom storage adopt`. The former owner finds the marker of a higher epoch,
//! and stops to write and to delete.

use super::{OwnerState, StoreOwners, recorded::Recorded};
use crate::{
    app::Error,
    domain::store_owner::{DatabaseIdentity, OwnerBeat, OwnerMarker, OwnerMismatch, Verdict},
    storage::MarkerWrite,
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
        let former = former.as_deref().and_then(OwnerMarker::parse).map(|marker| marker.beat.epoch);
        let Recorded { database, newest, .. } = self.read_recorded(provider, None).await?;
        let own = newest.map(|newest| newest.epoch);
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
}
