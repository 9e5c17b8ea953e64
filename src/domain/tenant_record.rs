//! A tenant as operators see it: its name, its state, and how far its deletion has come.

use serde::{Deserialize, Serialize};

use super::{
    caller::{TenantKind, TenantState},
    clock::Timestamp,
    ids::TenantId,
};

/// The longest reason of a suspension, in characters.
pub const REASON_CHARACTERS_MAX: usize = 255;
/// The longest issuer, in characters.
pub const ISSUER_CHARACTERS_MAX: usize = 500;

/// A tenant's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's Tenant, explained there")]
pub struct TenantRecord {
    pub id: TenantId,
    pub kind: TenantKind,
    pub issuer: String,
    pub external_id: String,
    pub preset: String,
    pub state: TenantState,
    pub state_time: Option<Timestamp>,
    pub state_reason: String,
    pub create_time: Timestamp,
    pub deletion: Deletion,
}

/// What there was when a deletion began, and what is gone of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's TenantDeletion, explained there")]
pub struct Deletion {
    pub file_count: i64,
    pub object_count: i64,
    pub bytes: i64,
    pub removed_row_count: i64,
    pub removed_object_count: i64,
    pub removed_bytes: i64,
    pub problem: String,
}

/// What a deletion would remove, and what stands in its way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionPlan {
    /// How many files, trash included.
    pub file_count: i64,
    /// How many stored objects.
    pub object_count: i64,
    /// How many bytes they have.
    pub bytes: i64,
    /// How many files must be kept.
    pub retained_file_count: i64,
    /// How many of them are under a legal hold, which no time ends.
    #[serde(default)]
    pub held_file_count: i64,
    /// Until when the last of the others.
    pub retained_until: Option<Timestamp>,
}
