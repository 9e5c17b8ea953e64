//! The id of a transaction, and what its outcome can be looked up by when the response to its COMMIT is lost.

use super::{DbError, sql::xid::Xid};
use crate::domain::{
    clock::Timestamp,
    ids::{BlobId, TenantId},
};

/// The PostgreSQL id of a transaction.
#[derive(Debug, Clone)]
pub struct TransactionId(pub(super) Xid);

impl TransactionId {
    /// Parses an id that a function of the database returned as text.
    pub(super) fn parse(operation: &'static str, text: &str) -> Result<Self, DbError> {
        text.parse().map(|number| Self(Xid(number))).map_err(|error| DbError::corrupt(operation, error))
    }
}

/// A row that exists only if the transaction was committed.
#[derive(Debug, Clone, Copy)]
pub enum WrittenRow {
    /// The transaction's audit entry of this time. Every mutation writes one.
    AuditEntry(Timestamp),
    /// The blob of an upload.
    Blob(BlobId),
}

/// The data by which the outcome of a transaction can be looked up.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    pub(super) transaction: TransactionId,
    pub(super) tenant: TenantId,
    /// `None` for a transaction that wrote no row on which its result depends.
    pub(super) row: Option<WrittenRow>,
}
