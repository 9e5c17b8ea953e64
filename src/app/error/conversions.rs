//! Conversions of errors of other layers to errors of use cases.

use super::{Error, Workload};
use crate::{
    app::owner::StoreRefusal,
    db::{Constraint, DbError, DbErrorKind},
    domain::{
        file::{FileState, WrongState},
        violations::Violations,
    },
    storage::{StorageError, StorageErrorKind, UnknownProvider},
};

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

impl From<WrongState> for Error {
    fn from(error: WrongState) -> Self {
        match error {
            WrongState::Deleted => Self::for_file_state(FileState::Deleted),
            WrongState::State(state) => Self::for_file_state(state),
        }
    }
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        match &error.kind {
            DbErrorKind::OutcomeUnknown { has_request_id } => {
                Self::OutcomeUnknown { has_request_id: *has_request_id, source: error.into() }
            }
            DbErrorKind::Unavailable
            | DbErrorKind::ReadOnly
            | DbErrorKind::TimedOut
            | DbErrorKind::Contended => Self::DatabaseUnavailable(error),
            DbErrorKind::Exhausted => Self::Overloaded(Workload::Transactions),
            DbErrorKind::StorageFull => Self::StorageFull(error.into()),
            DbErrorKind::Constraint(Constraint::TenantIsActive) => Self::TenantSuspended,
            DbErrorKind::Constraint(Constraint::TenantIsWritable) => Self::TenantReadOnly,
            DbErrorKind::Constraint(Constraint::TenantIsNotDeleted) => Self::TenantDeleted,
            DbErrorKind::Constraint(Constraint::FileCategoryExists) => {
                Violations::one("spec.category", "was deleted from the tenant's policy").into()
            }
            DbErrorKind::Constraint(Constraint::JobsByKey | Constraint::Other)
            | DbErrorKind::Corrupt
            | DbErrorKind::Other => Self::internal(error),
        }
    }
}

impl From<UnknownProvider> for Error {
    fn from(UnknownProvider(provider): UnknownProvider) -> Self {
        Self::ProviderUnknown(provider)
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error.kind {
            StorageErrorKind::NotFound => Self::ObjectMissing,
            StorageErrorKind::Damaged => Self::ObjectDamaged,
            StorageErrorKind::NoSpace => Self::StorageFull(error.into()),
            StorageErrorKind::Transient | StorageErrorKind::Unavailable => Self::StorageUnavailable(error),
            StorageErrorKind::Refused => match StoreRefusal::of(&error) {
                Some(StoreRefusal::NotOwner(not_owner)) => Self::StoreNotOwned(not_owner.clone()),
                _ => Self::StorageUnavailable(error),
            },
            _ => Self::internal(error),
        }
    }
}
