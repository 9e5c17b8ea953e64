//! Compares the marker of a store with the database.

use super::{NotOwner, OwnerState, StoreOwners, claim::Claim};
use crate::{
    app::Error,
    domain::{
        clock::Timestamp,
        store_owner::{DatabaseIdentity, OwnerBeat, OwnerMarker, OwnerMismatch, Verdict},
    },
    storage::ObjectStorage,
};

/// The number of times that a check reads the marker, if others create it at the same time.
const ATTEMPTS_MAX: usize = 3;

/// An unconfirmed owner that this process observes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The marker in the store.
    beat: OwnerBeat,
    database: DatabaseIdentity,
    since: Timestamp,
}

impl StoreOwners {
    /// Checks a store. Writes the first marker of a new store, and the next marker if it is due.
    pub(super) async fn check_now(
        &self,
        store: &dyn ObjectStorage,
        waiting: &mut Option<Waiting>,
    ) -> Result<OwnerState, Error> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(bytes) = store.read_marker(&self.0.parts.key_prefix).await? {
                return match OwnerMarker::parse(&bytes) {
                    Some(marker) => self.check_marker(store, marker, waiting).await,
                    None => Ok(not_owned(store, OwnerMismatch::MarkerUnreadable, None)),
                };
            }
            match self.claim_store(store).await? {
                Claim::Written => return Ok(OwnerState::Owned),
                Claim::Refused(mismatch) => return Ok(not_owned(store, mismatch, None)),
                Claim::Lost => {}
            }
        }
        Err(Error::internal("owner marker changes all the time"))
    }

    async fn check_marker(
        &self,
        store: &dyn ObjectStorage,
        marker: OwnerMarker,
        waiting: &mut Option<Waiting>,
    ) -> Result<OwnerState, Error> {
        let recorded = self.read_recorded(store.provider(), Some(&marker.beat)).await?;
        let verdict = marker.judge(&recorded.database, recorded.newest.as_ref(), recorded.is_recorded);
        if verdict != Verdict::Unconfirmed {
            *waiting = None;
        }
        match verdict {
            Verdict::NotOwned(mismatch) => Ok(not_owned(store, mismatch, Some(marker))),
            Verdict::Owned => {
                self.write_due_beat(store, &marker, recorded).await;
                Ok(OwnerState::Owned)
            }
            Verdict::Unconfirmed => {
                let now = self.0.parts.clock.now();
                let since = match waiting {
                    Some(seen) if seen.beat == marker.beat && seen.database == recorded.database => {
                        seen.since
                    }
                    _ => now,
                };
                *waiting = Some(Waiting { beat: marker.beat, database: recorded.database.clone(), since });
                let until = since + self.0.parts.limits.confirm_period;
                // Until then, a marker of the original would have shown that this database is a copy.
                if now < until || !self.write_next_beat(store, &marker, recorded).await? {
                    return Ok(OwnerState::Unconfirmed { until });
                }
                *waiting = None;
                Ok(OwnerState::Owned)
            }
        }
    }
}

fn not_owned(store: &dyn ObjectStorage, mismatch: OwnerMismatch, owner: Option<OwnerMarker>) -> OwnerState {
    OwnerState::NotOwned(Box::new(NotOwner { provider: store.provider().to_owned(), mismatch, owner }))
}
