//! Erasures: requests of operators to delete data for a legal duty before its retention ends.

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    ids::{ErasureId, FileId, TenantId},
};

/// The maximum length of the reason of an erasure, in characters.
pub const REASON_CHARACTERS_MAX: usize = 500;

/// A request to erase a file or a tenant before its retention ends, and its approval by another operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    pub id: ErasureId,
    pub tenant: TenantId,
    /// The file; `None` means the whole tenant.
    pub file: Option<FileId>,
    pub reason: String,
    /// The operator who requested it.
    pub requested_by: String,
    pub request_time: Timestamp,
    pub approval: Option<Approval>,
    /// The time until which it can be approved, and then used.
    pub expire_time: Timestamp,
    /// The time of the purge, or of the start of the deletion of the tenant.
    pub use_time: Option<Timestamp>,
}

/// The approval of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The operator who approved it, never the one who requested it.
    pub by: String,
    pub time: Timestamp,
}
