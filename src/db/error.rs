//! Database errors: a kind that callers can match on, and the driver's error for the logs.

use std::sync::Arc;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::connect::split_code;

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
    /// No connection of the pool, or of the caller's share of it, became free in time.
    Exhausted,
    /// The server accepts no writes: it is a standby, or was set to read-only.
    ReadOnly,
    /// The disk of the server is full.
    StorageFull,
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
    /// The tenant of a change is not read-only.
    TenantIsWritable,
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
            "tenant_is_writable" => Self::TenantIsWritable,
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

    /// Returns whether the database is unreachable or accepts no writes, so that nobody can change anything in
    /// it. A caller must not be able to cause such an error for its own calls.
    pub fn is_outage(&self) -> bool {
        matches!(self.kind, DbErrorKind::Unavailable | DbErrorKind::ReadOnly)
    }

    /// Converts a driver error and determines its kind.
    pub(super) fn from_driver(operation: &'static str, error: DieselError) -> Self {
        Self::new(classify(&error), operation, error)
    }
}

fn classify(error: &DieselError) -> DbErrorKind {
    match error {
        DieselError::DatabaseError(kind, info) => match kind {
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
                DbErrorKind::Unavailable
            }
            DatabaseErrorKind::SerializationFailure => DbErrorKind::Contended,
            DatabaseErrorKind::ReadOnlyTransaction => DbErrorKind::ReadOnly,
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::ExclusionViolation => {
                DbErrorKind::Constraint(Constraint::from_name(info.constraint_name().unwrap_or_default()))
            }
            _ => kind_from_code(info.message()),
        },
        DieselError::BrokenTransactionManager => DbErrorKind::Unavailable,
        DieselError::DeserializationError(_) => DbErrorKind::Corrupt,
        _ => DbErrorKind::Other,
    }
}

/// The connections that must not be used again after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// All connections to the server: it starts, shuts down, or accepts no writes.
    Server,
    /// The connection that reported the error. The server or a pooler ended its session.
    Session,
}

/// Returns which connections an error makes unusable.
pub(super) fn find_loss(error: &DieselError) -> Option<Loss> {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _) => Some(Loss::Server),
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, info) => match split_code(info.message()) {
            (Some(CANNOT_CONNECT_NOW), _) => Some(Loss::Server),
            (Some(INTERNAL_ERROR), message) if message.contains(DURING_RECOVERY) => Some(Loss::Server),
            (Some(code), _) if ends_session(code) => Some(Loss::Session),
            _ => None,
        },
        _ => None,
    }
}

const DISK_FULL: &str = "53100";
const TOO_MANY_CONNECTIONS: &str = "53300";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const QUERY_CANCELED: &str = "57014";
/// The server starts, or shuts down.
const CANNOT_CONNECT_NOW: &str = "57P03";
const DEADLOCK_DETECTED: &str = "40P01";
const INTERNAL_ERROR: &str = "XX000";

/// The codes with which the server ends a session: after a command of an administrator, at its own shutdown, and
/// after a timeout.
const SESSION_ENDS: [&str; 6] = ["57P01", "57P02", "57P04", "57P05", "25P03", "25P04"];

/// The codes of a prepared statement that a pooler lost, or that another process left in the session.
const STATEMENT_LOST: [&str; 2] = ["26000", "42P05"];

/// A part of the messages with which a standby refuses what only a primary can do. Most of these errors have the
/// code 25006. The others are internal errors, which PostgreSQL does not translate.
const DURING_RECOVERY: &str = "during recovery";

/// A disk quota has no SQLSTATE, and the operating system describes it in the language of `lc_messages`.
const DISK_QUOTA_EXCEEDED: &str = "disk quota exceeded";

/// Returns whether an error with this code ended the session. PgBouncer reports its errors in class 08, and 53300 if
/// it accepts no more clients.
fn ends_session(code: &str) -> bool {
    code.starts_with("08") || code == TOO_MANY_CONNECTIONS || SESSION_ENDS.contains(&code)
}

/// Determines the kind from the SQLSTATE, which [`connect`](super::connect) puts in front of the message.
fn kind_from_code(message: &str) -> DbErrorKind {
    let (Some(code), message) = split_code(message) else { return DbErrorKind::Other };
    match code {
        DISK_FULL => DbErrorKind::StorageFull,
        QUERY_CANCELED => DbErrorKind::TimedOut,
        DEADLOCK_DETECTED | LOCK_NOT_AVAILABLE => DbErrorKind::Contended,
        CANNOT_CONNECT_NOW => DbErrorKind::Unavailable,
        INTERNAL_ERROR if message.contains(DURING_RECOVERY) => DbErrorKind::ReadOnly,
        INTERNAL_ERROR if message.to_lowercase().contains(DISK_QUOTA_EXCEEDED) => DbErrorKind::StorageFull,
        code if ends_session(code) || STATEMENT_LOST.contains(&code) => DbErrorKind::Unavailable,
        _ => DbErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(kind: DatabaseErrorKind, message: &str) -> DieselError {
        DieselError::DatabaseError(kind, Box::new(message.to_owned()))
    }

    #[test]
    fn codes_determine_the_kind_in_every_language() {
        use DbErrorKind::{Contended, Other, ReadOnly, StorageFull, TimedOut, Unavailable};
        for (message, kind, loss) in [
            ("57P03: das Datenbanksystem startet", Unavailable, Some(Loss::Server)),
            ("57P03: the database system is shutting down", Unavailable, Some(Loss::Server)),
            ("XX000: cannot assign TransactionIds during recovery", ReadOnly, Some(Loss::Server)),
            ("57P01: breche Verbindung ab", Unavailable, Some(Loss::Session)),
            ("25P03: breche Verbindung ab", Unavailable, Some(Loss::Session)),
            ("08P01: query_wait_timeout", Unavailable, Some(Loss::Session)),
            ("08006: Verbindungsfehler", Unavailable, Some(Loss::Session)),
            ("53300: no more connections allowed (max_client_conn)", Unavailable, Some(Loss::Session)),
            ("26000: prepared statement \"s3\" does not exist", Unavailable, None),
            ("42P05: vorbereitete Anweisung »s3« existiert bereits", Unavailable, None),
            ("53100: Auf dem Gerät ist kein Speicherplatz mehr verfügbar", StorageFull, None),
            ("XX000: could not extend file: Disk quota exceeded", StorageFull, None),
            ("57014: Anweisung wird abgebrochen wegen Zeitüberschreitung", TimedOut, None),
            ("40P01: Verklemmung (Deadlock) entdeckt", Contended, None),
            ("55P03: Sperre nicht verfügbar", Contended, None),
            ("42P01: relation \"no space left on device\" does not exist", Other, None),
            ("no space left on device", Other, None),
        ] {
            let error = reported(DatabaseErrorKind::Unknown, message);
            assert_eq!(find_loss(&error), loss, "{message}");
            assert_eq!(DbError::from_driver("x", error).kind, kind, "{message}");
        }
        let read_only = reported(DatabaseErrorKind::ReadOnlyTransaction, "25006: nur lesend");
        assert_eq!(find_loss(&read_only), Some(Loss::Server));
        assert_eq!(DbError::from_driver("x", read_only).kind, ReadOnly);
    }

    #[test]
    fn only_an_unavailable_database_is_an_outage() {
        use DbErrorKind::{Contended, Exhausted, Other, ReadOnly, TimedOut, Unavailable};
        let is_outage = |kind| DbError::new(kind, "x", "y").is_outage();
        assert!([Unavailable, ReadOnly].map(is_outage).iter().all(|outage| *outage));
        assert!([Exhausted, TimedOut, Contended, Other].map(is_outage).iter().all(|outage| !outage));
    }
}
