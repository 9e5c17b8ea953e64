//! The database, as a marker is compared with it.

use super::StoreOwners;
use crate::{
    app::Error,
    db::store_beats,
    domain::store_owner::{DatabaseIdentity, OwnerBeat},
};

/// The database, and its relation to a marker.
pub(super) struct Recorded {
    pub(super) database: DatabaseIdentity,
    /// The provider for which the beats of the store are recorded. If several providers of this database share the
    /// store, it is the one that wrote the marker: they renew it together.
    pub(super) beat_provider: String,
    pub(super) newest: Option<OwnerBeat>,
    pub(super) is_recorded: bool,
}

impl StoreOwners {
    /// Reads the database, and whether it has a record of a marker.
    pub(super) async fn read_recorded(
        &self,
        provider: &str,
        beat: Option<&OwnerBeat>,
    ) -> Result<Recorded, Error> {
        let mut tx = self.0.parts.db.system_tx().await?;
        let database = store_beats::get_identity(&mut tx).await?;
        let writer = match beat {
            Some(beat) => store_beats::find_provider(&mut tx, beat).await?,
            None => None,
        };
        let is_recorded = writer.is_some();
        let beat_provider = writer.unwrap_or_else(|| provider.to_owned());
        let newest = store_beats::find_newest(&mut tx, &beat_provider).await?;
        tx.commit().await?;
        Ok(Recorded { database, beat_provider, newest, is_recorded })
    }
}
