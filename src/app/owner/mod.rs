//! Checks that each store belongs to this database before anything is written to it or deleted from it.
//!
//! A copy of the database that is started on the store of its original would delete live objects: open
//! uploads of the copy expire, its trash is purged, and both have rows for objects that the original still
//! uses. Each store therefore has an owner marker (`domain/store_owner.rs`), which only its owner renews. A
//! copy can read.
//!
//! - [`StoreOwners`] compares the marker with the database (`check.rs`), writes the first marker of a store
//!   (`claim.rs`) and the following ones (`beat.rs`), and takes a store over (`adopt.rs`).
//! - `checked.rs` wraps every store of the use cases, so that no write and no deletion bypasses the check.
//! - `delete.rs` contains the only calls of the port that delete something.
//!
//! After a restore, the restored database owns the store, and nothing is deleted from it until an operator decides about
//! the objects of the lost hours (`domain/lost_hours.rs`): each row of the restored state may be outdated, and name an
//! object that belongs to a lost file.
//!
//! A check is valid for `storage.owner_check_seconds`. Every process repeats it while it runs, and rounds of
//! deletions begin with a new one.

mod adopt;
mod beat;
mod check;
mod checked;
mod claim;
pub(in crate::app) mod delete;
mod recorded;
mod refusal;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

pub use self::{
    adopt::OwnerReport,
    refusal::{NotOwner, StoreRefusal},
};
use self::{check::Waiting, checked::OwnerChecked};
use super::Error;
use crate::{
    config::OwnerLimits,
    db::{Database, lost_hours},
    domain::{
        clock::{Clock, IdSource, Timestamp},
        lost_hours::LostHours,
    },
    storage::{ObjectStorage, StorageError, StorageErrorKind, Stores, UnknownProvider},
    telemetry::Metrics,
};

/// The number of check intervals for which writes continue after the last successful check, while checks fail
/// because the store or the database is unavailable.
const TRUSTED_INTERVALS: u32 = 6;

/// Whether a store belongs to this database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OwnerState {
    /// The store was not checked yet.
    #[default]
    Unchecked,
    /// The store belongs to this database.
    Owned,
    /// The server of the database was restarted or failed over. Deletions wait, because a physical copy of
    /// the database looks the same.
    Unconfirmed {
        /// The time from which the next check may confirm the owner.
        until: Timestamp,
    },
    /// The store does not belong to this database.
    NotOwned(Box<NotOwner>),
}

/// The dependencies of the checks.
pub struct OwnerParts {
    pub db: Database,
    pub stores: Stores,
    pub clock: Arc<dyn Clock>,
    /// Used for the tokens of markers.
    pub ids: Arc<dyn IdSource>,
    /// Receives the results of checks. `None` in maintenance commands.
    pub metrics: Option<Metrics>,
    pub limits: OwnerLimits,
    /// The prefix of every object key; may be empty.
    pub key_prefix: String,
}

/// The owners of all configured stores. Clones share the state.
#[derive(Clone)]
pub struct StoreOwners(Arc<Inner>);

struct Inner {
    parts: OwnerParts,
    slots: BTreeMap<String, Slot>,
}

/// The state of one store.
struct Slot {
    /// The store without its limits: the operations that hold the permits wait for the check.
    store: Arc<dyn ObjectStorage>,
    /// Locked during a check. Others wait for its result.
    check: Mutex<Option<Waiting>>,
    known: RwLock<Known>,
}

/// The result of the last check.
#[derive(Debug, Clone, Default)]
struct Known {
    state: OwnerState,
    /// Lost hours that were undecided at the last check.
    undecided: Option<LostHours>,
    /// The time of the last check, unless it failed.
    checked_at: Option<Instant>,
    /// The time of the last check that did not fail.
    succeeded_at: Option<Instant>,
}

impl fmt::Debug for StoreOwners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOwners").finish_non_exhaustive()
    }
}

impl StoreOwners {
    /// Creates the checks of these stores. Nothing is checked yet.
    pub fn new(parts: OwnerParts) -> Self {
        let slots = parts.stores.unlimited().map(|store| {
            let slot = Slot { store: Arc::clone(store), check: Mutex::default(), known: RwLock::default() };
            (store.provider().to_owned(), slot)
        });
        let slots = slots.collect();
        Self(Arc::new(Inner { parts, slots }))
    }

    /// Returns the stores, with checks before each write and deletion.
    pub fn checked_stores(&self) -> Stores {
        self.0.parts.stores.map(|store| OwnerChecked::wrap(Arc::clone(store), self.clone()))
    }

    /// Checks every store whose last check is older than `storage.owner_check_seconds`. A failure is logged.
    pub async fn check_stores(&self) {
        let max_age = self.0.parts.limits.check_interval;
        let checks = self.0.slots.iter().map(|(provider, slot)| async move {
            if let Err(error) = self.refresh(slot, Some(max_age)).await {
                tracing::warn!(provider, %error, "failed to check the owner of a store");
            }
        });
        futures::future::join_all(checks).await;
    }

    /// Checks a store now.
    ///
    /// # Errors
    /// Returns an error if the store or the database is unavailable.
    pub async fn check_store(&self, provider: &str) -> Result<OwnerState, Error> {
        self.refresh(self.slot(provider)?, None).await
    }

    /// Returns the result of the last check of a store.
    pub fn known_state(&self, provider: &str) -> OwnerState {
        self.0.slots.get(provider).map(|slot| slot.read().state).unwrap_or_default()
    }

    /// Returns why one of the stores does not belong to this database, according to the last checks.
    pub fn find_mismatch(&self) -> Option<NotOwner> {
        self.0.slots.values().find_map(|slot| match slot.read().state {
            OwnerState::NotOwned(not_owner) => Some(*not_owner),
            _ => None,
        })
    }

    /// Checks that the store for new objects belongs to this database, according to the last check. Called
    /// before changes of records, which a copy of a database must not make: it may read only.
    ///
    /// # Errors
    /// Returns `StoreNotOwned` if it does not.
    pub(in crate::app) fn check_primary(&self) -> Result<(), Error> {
        self.check_known(self.0.parts.stores.primary().provider())
    }

    /// Returns whether background work may change records, according to the last check.
    pub fn may_change_records(&self) -> bool {
        self.check_primary().is_ok()
    }

    /// Like [`Self::check_primary`], for any store.
    pub(in crate::app) fn check_known(&self, provider: &str) -> Result<(), Error> {
        match self.known_state(provider) {
            OwnerState::NotOwned(not_owner) => Err(Error::StoreNotOwned(not_owner)),
            _ => Ok(()),
        }
    }

    /// Checks a store before a round of deletions. Returns why nothing may be deleted, or `None` if objects
    /// may.
    ///
    /// # Errors
    /// Returns an error if the store or the database is unavailable.
    pub(in crate::app) async fn check_before_deletions(
        &self,
        provider: &str,
    ) -> Result<Option<StoreRefusal>, Error> {
        let state = self.check_store(provider).await?;
        match self.refuse_deletion(provider, state) {
            Err(refusal) => Ok(Some(refusal)),
            Ok(()) => self.find_undecided(provider).await,
        }
    }

    /// Checks a store before a write, unless the last check is recent.
    async fn allow_write(&self, provider: &str) -> Result<(), StorageError> {
        let state = match self.recent_state(provider).await {
            // Uploads continue while a check is not possible. The state was right a moment ago.
            Err(error) => self.trusted_state(provider).ok_or(error)?,
            Ok(state) => state,
        };
        match state {
            OwnerState::NotOwned(not_owner) => {
                Err(refused("write to store", StoreRefusal::NotOwner(not_owner)))
            }
            OwnerState::Owned | OwnerState::Unconfirmed { .. } | OwnerState::Unchecked => Ok(()),
        }
    }

    /// Checks a store before a deletion, unless the last check is recent.
    async fn allow_deletion(&self, provider: &str) -> Result<(), StorageError> {
        const OPERATION: &str = "delete from store";
        if !self.0.parts.limits.deletes_enabled {
            return Err(refused(OPERATION, StoreRefusal::DeletesDisabled));
        }
        let state = self.recent_state(provider).await?;
        self.refuse_deletion(provider, state).map_err(|refusal| refused(OPERATION, refusal))?;
        match Box::pin(self.find_undecided(provider)).await.map_err(failed_check)? {
            Some(refusal) => Err(refused(OPERATION, refusal)),
            None => Ok(()),
        }
    }

    /// Returns the refusal of deletions while lost hours are undecided. They are looked up again, because the decision
    /// may have been made since the last check.
    async fn find_undecided(&self, provider: &str) -> Result<Option<StoreRefusal>, Error> {
        if self.slot(provider)?.read().undecided.is_none() {
            return Ok(None);
        }
        let undecided = self.read_undecided(provider).await?;
        let refusal = |lost| StoreRefusal::Undecided { provider: provider.to_owned(), lost: Box::new(lost) };
        Ok(undecided.map(refusal))
    }

    async fn read_undecided(&self, provider: &str) -> Result<Option<LostHours>, Error> {
        let mut tx = self.0.parts.db.system_tx().await?;
        let undecided = lost_hours::find_undecided(&mut tx, provider).await?;
        tx.commit().await?;
        Ok(undecided)
    }

    fn refuse_deletion(&self, provider: &str, state: OwnerState) -> Result<(), StoreRefusal> {
        match state {
            OwnerState::NotOwned(not_owner) => Err(StoreRefusal::NotOwner(not_owner)),
            _ if !self.0.parts.limits.deletes_enabled => Err(StoreRefusal::DeletesDisabled),
            OwnerState::Unconfirmed { until } => {
                Err(StoreRefusal::Unconfirmed { provider: provider.to_owned(), until })
            }
            OwnerState::Owned | OwnerState::Unchecked => Ok(()),
        }
    }

    /// Returns the state of a store that was checked within `storage.owner_check_seconds`.
    async fn recent_state(&self, provider: &str) -> Result<OwnerState, StorageError> {
        let max_age = self.0.parts.limits.check_interval;
        let slot = self.slot(provider).map_err(|unknown| failed_check(unknown.into()))?;
        let known = slot.read();
        if known.is_recent(max_age) {
            return Ok(known.state);
        }
        // Boxed, because the future is part of that of each write.
        Box::pin(self.refresh(slot, Some(max_age))).await.map_err(failed_check)
    }

    /// Returns the last known state if it allows writes and is not too old.
    fn trusted_state(&self, provider: &str) -> Option<OwnerState> {
        let known = self.0.slots.get(provider)?.read();
        let age_max = self.0.parts.limits.check_interval * TRUSTED_INTERVALS;
        let is_trusted = known.succeeded_at.is_some_and(|time| time.elapsed() < age_max);
        (is_trusted && !matches!(known.state, OwnerState::NotOwned(_))).then_some(known.state)
    }

    /// Checks a store, unless another caller did so within `max_age` in the meantime.
    async fn refresh(&self, slot: &Slot, max_age: Option<Duration>) -> Result<OwnerState, Error> {
        let mut waiting = slot.check.lock().await;
        let known = slot.read();
        if max_age.is_some_and(|max_age| known.is_recent(max_age)) {
            return Ok(known.state);
        }
        let provider = slot.store.provider();
        let checked = async {
            let state = Box::pin(self.check_now(slot.store.as_ref(), &mut waiting)).await?;
            // After the owner: an adoption records them first.
            Ok::<_, Error>((state, self.read_undecided(provider).await?))
        };
        let checked = Box::pin(checked).await;
        let now = Instant::now();
        match checked {
            Ok((state, undecided)) => {
                self.report_change(provider, &known.state, &state);
                slot.write(Known {
                    state: state.clone(),
                    undecided,
                    checked_at: Some(now),
                    succeeded_at: Some(now),
                });
                Ok(state)
            }
            Err(error) => {
                slot.write(Known { checked_at: None, ..known });
                Err(error)
            }
        }
    }

    fn slot(&self, provider: &str) -> Result<&Slot, UnknownProvider> {
        self.0.slots.get(provider).ok_or_else(|| UnknownProvider(provider.to_owned()))
    }

    /// Logs a change of the state, and updates the metric.
    fn report_change(&self, provider: &str, before: &OwnerState, after: &OwnerState) {
        if let Some(metrics) = &self.0.parts.metrics {
            metrics.set_storage_owned(provider, !matches!(after, OwnerState::NotOwned(_)));
        }
        if before == after {
            return;
        }
        match after {
            OwnerState::NotOwned(not_owner) => {
                tracing::error!(provider, error = %not_owner, "store does not belong to this database");
            }
            OwnerState::Unconfirmed { until } => {
                tracing::info!(provider, %until, "deletions wait, because the database server was restarted");
            }
            OwnerState::Owned | OwnerState::Unchecked => {
                tracing::info!(provider, "store belongs to this database");
            }
        }
    }
}

impl Slot {
    fn read(&self) -> Known {
        // The value is replaced as a whole.
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

impl Known {
    fn is_recent(&self, max_age: Duration) -> bool {
        self.checked_at.is_some_and(|time| time.elapsed() < max_age)
    }
}

/// Returns the error of a call that this service refused.
fn refused(operation: &'static str, refusal: StoreRefusal) -> StorageError {
    StorageError::new(StorageErrorKind::Refused, operation).with_source(refusal)
}

/// Returns the error of a call before which the owner could not be checked.
fn failed_check(error: Error) -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, "check owner of store").with_source(error)
}
