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
        let newest = store_beats::find_newest(&mut tx, provider).await?;
        let is_recorded = match beat {
            Some(beat) => store_beats::is_recorded(&mut tx, provider, beat).await?,
            None => false,
        };
        tx.commit().await?;
        Ok(Recorded { database, newest, is_recorded })
    }
}
