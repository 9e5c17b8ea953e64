//! Why a write or a deletion was refused.

use crate::{
    domain::{
        clock::Timestamp,
        lost_hours::LostHours,
        store_owner::{OwnerMarker, OwnerMismatch},
    },
    storage::StorageError,
};

/// A store does not belong to this database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "store `{provider}` belongs to another database: {mismatch}; only reads are possible; `strongroom storage adopt` takes it over{}",
    describe_owner(owner.as_ref())
)]
pub struct NotOwner {
    pub provider: String,
    pub mismatch: OwnerMismatch,
    /// The marker in the store, if it can be read.
    pub owner: Option<OwnerMarker>,
}

/// Why a call of a store was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreRefusal {
    #[error(transparent)]
    NotOwner(#[from] Box<NotOwner>),
    #[error("deletions are disabled; set storage.deletes_enabled = true to enable them")]
    DeletesDisabled,
    #[error(
        "deletions from store `{provider}` wait until {until}, because the database server was restarted or failed over; `strongroom storage adopt` ends the wait"
    )]
    Unconfirmed { provider: String, until: Timestamp },
    #[error("nothing is deleted from store `{provider}`: {lost}")]
    Undecided {
        provider: String,
        /// The lost hours about whose objects no operator has decided.
        lost: Box<LostHours>,
    },
}

impl StoreRefusal {
    /// Returns whether an error is a refusal of a deletion that is possible later.
    pub fn is_temporary(error: &StorageError) -> bool {
        matches!(
            Self::of(error),
            Some(Self::DeletesDisabled | Self::Unconfirmed { .. } | Self::Undecided { .. })
        )
    }

    /// Returns the refusal that is the cause of a storage error.
    pub fn of(error: &StorageError) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

fn describe_owner(owner: Option<&OwnerMarker>) -> String {
    owner.map(|owner| format!("; owner: {owner}")).unwrap_or_default()
}
