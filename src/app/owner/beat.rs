//! Renews the marker of a store that belongs to this database. The row of a beat is inserted before its
//! marker is written, so the database knows every marker that it may have written, whatever happens in
//! between.

use super::{StoreOwners, recorded::Recorded};
use crate::{
    app::Error,
    db::store_beats,
    domain::store_owner::{DatabaseIdentity, OwnerBeat, OwnerMarker},
    storage::{MarkerWrite, ObjectStorage, StorageError, StorageErrorKind},
};

/// The number of beats that the database keeps. A write of a marker that was delayed in the network by more
/// beats is taken for one of another database.
const BEATS_KEPT: i64 = 100;

impl StoreOwners {
    /// Writes the next marker if it is due. A failure is logged: the marker in the store is still valid.
    pub(super) async fn write_due_beat(
        &self,
        store: &dyn ObjectStorage,
        marker: &OwnerMarker,
        recorded: Recorded,
    ) {
        // A marker with a time far in the future is due as well: the clock of its writer was wrong.
        let age = self.0.parts.clock.now() - marker.write_time;
        if age.abs() < self.0.parts.limits.beat_interval {
            return;
        }
        if let Err(error) = self.write_next_beat(store, marker, recorded).await {
            tracing::warn!(provider = store.provider(), %error, "failed to renew owner marker");
        }
    }

    /// Writes the next marker, or that of a recorded beat whose marker was not written. Returns false if
    /// another process is writing it.
    pub(super) async fn write_next_beat(
        &self,
        store: &dyn ObjectStorage,
        marker: &OwnerMarker,
        recorded: Recorded,
    ) -> Result<bool, Error> {
        let Recorded { database, beat_provider, newest, .. } = recorded;
        let newest = newest.unwrap_or(marker.beat);
        let beat = if newest == marker.beat {
            let token = self.0.parts.ids.uuid();
            let next = OwnerBeat { beat: newest.beat.saturating_add(1), token, ..newest };
            if !self.record_beat(&beat_provider, &next).await? {
                return Ok(false);
            }
            next
        } else {
            newest
        };
        self.write_marker(store, database, beat, MarkerWrite::Replace).await?;
        let mut tx = self.0.parts.db.system_tx().await?;
        store_beats::delete_old(&mut tx, &beat_provider, &beat, BEATS_KEPT).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Inserts the row of a beat. Returns false if another process inserted one with this number.
    pub(super) async fn record_beat(&self, provider: &str, beat: &OwnerBeat) -> Result<bool, Error> {
        let mut tx = self.0.parts.db.system_tx().await?;
        let is_inserted = store_beats::insert(&mut tx, provider, beat).await?;
        tx.commit().await?;
        Ok(is_inserted)
    }

    pub(super) async fn write_marker(
        &self,
        store: &dyn ObjectStorage,
        database: DatabaseIdentity,
        beat: OwnerBeat,
        write: MarkerWrite,
    ) -> Result<OwnerMarker, StorageError> {
        let marker = OwnerMarker::new(database, beat, self.0.parts.clock.now());
        let body = serde_json::to_vec_pretty(&marker).map_err(|error| {
            StorageError::new(StorageErrorKind::Other, "encode owner marker").with_source(error)
        })?;
        store.write_marker(&self.0.parts.key_prefix, body.into(), write).await?;
        Ok(marker)
    }
}
