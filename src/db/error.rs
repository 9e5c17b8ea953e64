//! What can go wrong between us and PostgreSQL: a kind for those who decide, and the source for those who read logs.

use std::sync::Arc;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// A database error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct DbError {
    /// What kind.
    pub kind: DbErrorKind,
    /// What was tried, as a bare verb phrase.
    pub operation: &'static str,
    /// What the driver said.
    #[source]
    pub source: Arc<dyn std::error::Error + Send + Sync>,
}

/// What kind of database error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbErrorKind {
    /// The server does not answer, or the connection was lost.
    Unavailable,
    /// The response to a COMMIT was lost, and the database could not be asked about the transaction in time.
    OutcomeUnknown {
        /// Whether the transaction has a request id, so that a retry is safe.
        has_request_id: bool,
    },
    /// The statement ran into its time limit.
    TimedOut,
    /// Two transactions stepped on each other's feet; trying again helps.
    Contended,
    /// A constraint of this name refused the change.
    Constraint(String),
    /// A row does not read as it must.
    Corrupt,
    /// Anything else: a fault of ours.
    Other,
}

impl DbError {
    pub(super) fn new(
        kind: DbErrorKind,
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, operation, source: Arc::from(source.into()) }
    }

    /// A row holds what it cannot.
    pub(super) fn corrupt(operation: &'static str, what: impl std::fmt::Display) -> Self {
        Self::new(DbErrorKind::Corrupt, operation, format!("unexpected {what}"))
    }

    /// Gives a driver's error its kind.
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
                    DbErrorKind::Constraint(info.constraint_name().unwrap_or_default().to_owned())
                }
                _ => by_message(info.message()),
            },
            DieselError::BrokenTransactionManager => DbErrorKind::Unavailable,
            DieselError::DeserializationError(_) => DbErrorKind::Corrupt,
            _ => DbErrorKind::Other,
        };
        Self::new(kind, operation, error)
    }
}

/// The driver passes some errors on as text alone.
fn by_message(message: &str) -> DbErrorKind {
    const AWAY: [&str; 9] = [
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
    if AWAY.iter().any(|sign| message.contains(sign)) {
        DbErrorKind::Unavailable
    } else if message.contains("statement timeout") {
        DbErrorKind::TimedOut
    } else if message.contains("deadlock detected") || message.contains("lock timeout") {
        DbErrorKind::Contended
    } else {
        DbErrorKind::Other
    }
}
