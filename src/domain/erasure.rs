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
    pub requested_by: OperatorName,
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
    /// The operator who approved it. Its subject is never that of the operator who requested it.
    pub by: OperatorName,
    pub time: Timestamp,
}

/// The name of an operator. One person may have accounts with the same subject at several issuers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorName {
    /// The issuer that named the operator.
    pub issuer: String,
    pub subject: String,
}

impl Erasure {
    /// Returns the details of the erasure for audit entries: its id, its reason, and who requested and approved it.
    pub fn audit_details(&self) -> serde_json::Value {
        let approved_by = self.approval.as_ref().map(|approval| &approval.by);
        serde_json::json!({
            "id": self.id,
            "reason": self.reason,
            "requested_by": self.requested_by,
            "approved_by": approved_by,
        })
    }
}
