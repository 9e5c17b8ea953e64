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
            _ => kind_from_message(info.message()),
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
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, info) => {
            let message = info.message().to_lowercase();
            if contains_any(&message, &SERVER_FAILS) {
                Some(Loss::Server)
            } else if contains_any(&message, &SESSION_ENDS) || contains_any(&message, &POOLER_FAILS) {
                Some(Loss::Session)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// Messages of the SQLSTATEs 57P03 and 25006. The driver does not report the SQLSTATE, so the messages of the
/// server must be in English (`lc_messages`).
const SERVER_FAILS: [&str; 3] = ["the database system is", "during recovery", "read-only transaction"];

/// The message of the SQLSTATEs 57P01, 57P02, 57P05 and 25P03. A server that shuts down sends it to each
/// session, but one session can also be ended alone.
const SESSION_ENDS: [&str; 1] = ["terminating connection"];

/// Messages of class 08, most of which come from PgBouncer, and the errors about prepared statements that the
/// session lost or kept.
const POOLER_FAILS: [&str; 10] = [
    "pgbouncer cannot connect",
    "query_wait_timeout",
    "no more connections allowed",
    "server conn crashed",
    "server connection crashed",
    "server closed the connection",
    "server login",
    "server disconnect",
    "connection failure",
    "protocol synchronization was lost",
];

/// Messages about connections that fail or are refused.
const CONNECTION_FAILS: [&str; 8] = [
    "connection closed",
    "error communicating with the server",
    "connection reset",
    "broken pipe",
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "connection exception",
];

/// Messages of SQLSTATE 53100.
const DISK_FULL: [&str; 2] = ["no space left on device", "disk quota exceeded"];

fn contains_any(message: &str, texts: &[&str]) -> bool {
    texts.iter().any(|text| message.contains(text))
}

/// A pooler lost a prepared statement, or gave us a session in which another process left one.
fn is_about_lost_statement(message: &str) -> bool {
    message.contains("prepared statement")
        && (message.contains("does not exist") || message.contains("already exists"))
}

/// Determines the kind from the message, because the driver reports some errors only as text.
fn kind_from_message(message: &str) -> DbErrorKind {
    let message = message.to_lowercase();
    if contains_any(&message, &DISK_FULL) {
        DbErrorKind::StorageFull
    } else if message.contains("during recovery") {
        DbErrorKind::ReadOnly
    } else if contains_any(&message, &SERVER_FAILS)
        || contains_any(&message, &SESSION_ENDS)
        || contains_any(&message, &POOLER_FAILS)
        || contains_any(&message, &CONNECTION_FAILS)
        || is_about_lost_statement(&message)
    {
        DbErrorKind::Unavailable
    } else if message.contains("statement timeout") {
        DbErrorKind::TimedOut
    } else if message.contains("deadlock detected") || message.contains("lock timeout") {
        DbErrorKind::Contended
    } else {
        DbErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(kind: DatabaseErrorKind, message: &str) -> DieselError {
        DieselError::DatabaseError(kind, Box::new(message.to_owned()))
    }

    #[test]
    fn only_errors_of_the_server_discard_all_connections() {
        use DbErrorKind::{ReadOnly, Unavailable};
        for (message, kind, loss) in [
            ("the database system is in recovery mode", Unavailable, Loss::Server),
            ("the database system is shutting down", Unavailable, Loss::Server),
            ("cannot assign TransactionIds during recovery", ReadOnly, Loss::Server),
            ("terminating connection due to administrator command", Unavailable, Loss::Session),
            ("terminating connection due to idle-in-transaction timeout", Unavailable, Loss::Session),
            ("terminating connection due to conflict with recovery", Unavailable, Loss::Session),
            ("pgbouncer cannot connect to server", Unavailable, Loss::Session),
            ("query_wait_timeout", Unavailable, Loss::Session),
            ("no more connections allowed (max_client_conn)", Unavailable, Loss::Session),
            ("server conn crashed?", Unavailable, Loss::Session),
        ] {
            let error = reported(DatabaseErrorKind::Unknown, message);
            assert_eq!(find_loss(&error), Some(loss), "{message}");
            assert_eq!(DbError::from_driver("x", error).kind, kind, "{message}");
        }
        let read_only = reported(
            DatabaseErrorKind::ReadOnlyTransaction,
            "cannot execute INSERT in a read-only transaction",
        );
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

    #[test]
    fn full_disk_of_the_server_keeps_its_connections() {
        let full = reported(
            DatabaseErrorKind::Unknown,
            "could not extend file \"base/5/16384\": No space left on device",
        );
        assert_eq!(find_loss(&full), None);
        assert_eq!(DbError::from_driver("x", full).kind, DbErrorKind::StorageFull);
    }

    #[test]
    fn statement_that_a_pooler_lost_is_unavailable() {
        for message in
            ["prepared statement \"s3\" does not exist", "prepared statement \"s3\" already exists"]
        {
            let error = reported(DatabaseErrorKind::Unknown, message);
            assert_eq!(DbError::from_driver("x", error).kind, DbErrorKind::Unavailable);
        }
    }
}
