//! Database errors: a kind that callers can match on, and the driver's error for the logs.

use std::sync::Arc;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// A database error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct DbError {
    pub kind: DbErrorKind,
    /// The operation that failed, as a bare verb phrase.
    pub operation: &'static str,
    /// The underlying error.
    #[source]
    pub source: Arc<dyn std::error::Error + Send + Sync>,
}

/// The kind of a database error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbErrorKind {
    /// The server is unreachable, or the connection was lost.
    Unavailable,
    /// The response to a COMMIT was lost, and the outcome of the transaction could not be looked up in time.
    OutcomeUnknown {
        /// Whether the transaction has a request id, so that a retry is safe.
        has_request_id: bool,
    },
    /// The statement exceeded its time limit.
    TimedOut,
    /// The transaction conflicted with another one. Retrying it can succeed.
    Contended,
    /// The change violates this constraint.
    Constraint(Constraint),
    /// A row contains an unexpected value.
    Corrupt,
    /// Any other error; a bug in the service.
    Other,
}

/// A constraint whose violation has a meaning for callers. Triggers raise some of them under these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// The tenant of a change is active.
    TenantIsActive,
    /// The tenant of a change is not deleted.
    TenantIsNotDeleted,
    /// The category of a file is in the tenant's policy.
    FileCategoryExists,
    /// A tenant has one ready or running job for each deduplication key.
    JobsByKey,
    /// Any other constraint. The source of the error names it.
    Other,
}

impl Constraint {
    fn from_name(name: &str) -> Self {
        match name {
            "tenant_is_active" => Self::TenantIsActive,
            "tenant_is_not_deleted" => Self::TenantIsNotDeleted,
            "file_category_exists" => Self::FileCategoryExists,
            "jobs_by_key" => Self::JobsByKey,
            _ => Self::Other,
        }
    }
}

impl DbError {
    pub(super) fn new(
        kind: DbErrorKind,
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, operation, source: Arc::from(source.into()) }
    }

    /// Creates a `Corrupt` error for an unexpected value.
    pub(super) fn corrupt(operation: &'static str, what: impl std::fmt::Display) -> Self {
        Self::new(DbErrorKind::Corrupt, operation, format!("unexpected data: {what}"))
    }

    /// Converts a driver error and determines its kind.
    pub(super) fn from_driver(operation: &'static str, error: DieselError) -> Self {
        let kind = match &error {
            DieselError::DatabaseError(kind, info) => match kind {
                DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
                    DbErrorKind::Unavailable
                }
                DatabaseErrorKind::SerializationFailure => DbErrorKind::Contended,
                DatabaseErrorKind::UniqueViolation
                | DatabaseErrorKind::ForeignKeyViolation
                | DatabaseErrorKind::CheckViolation
                | DatabaseErrorKind::ExclusionViolation => {
                    DbErrorKind::Constraint(Constraint::from_name(info.constraint_name().unwrap_or_default()))
                }
                _ => kind_from_message(info.message()),
            },
            DieselError::BrokenTransactionManager => DbErrorKind::Unavailable,
            DieselError::DeserializationError(_) => DbErrorKind::Corrupt,
            _ => DbErrorKind::Other,
        };
        Self::new(kind, operation, error)
    }
}

/// Determines the kind from the message, because the driver reports some errors only as text.
fn kind_from_message(message: &str) -> DbErrorKind {
    const UNAVAILABLE: [&str; 9] = [
        "connection closed",
        "error communicating with the server",
        "terminating connection",
        "the database system is",
        "connection reset",
        "broken pipe",
        "too many clients",
        "too many connections",
        "remaining connection slots",
    ];
    let message = message.to_lowercase();
    if UNAVAILABLE.iter().any(|text| message.contains(text)) {
        DbErrorKind::Unavailable
    } else if message.contains("statement timeout") {
        DbErrorKind::TimedOut
    } else if message.contains("deadlock detected") || message.contains("lock timeout") {
        DbErrorKind::Contended
    } else {
        DbErrorKind::Other
    }
}
