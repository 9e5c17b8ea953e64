//! Tenant records, as operators see them: name, state, and progress of a deletion.

use serde::{Deserialize, Serialize};

use super::{
    caller::{TenantKind, TenantState},
    clock::Timestamp,
    ids::TenantId,
    rate_limits::RequestLimits,
};

/// The maximum length of the reason of a suspension, in characters.
pub const REASON_CHARACTERS_MAX: usize = 255;
/// The maximum length of an issuer, in characters.
pub const ISSUER_CHARACTERS_MAX: usize = 500;

/// The record of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    pub deletion: DeletionProgress,
    /// Whether its callers can read but change nothing. Absent from responses that an earlier release has recorded.
    #[serde(default)]
    pub is_read_only: bool,
    /// Its own limits of requests. Absent from responses that an earlier release has recorded.
    #[serde(default, skip_serializing_if = "RequestLimits::is_empty")]
    pub rate_limits: RequestLimits,
}

/// The progress of a deletion: the amount of data when it started, and the amount deleted so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionProgress {
    pub file_count: i64,
    pub object_count: i64,
    pub bytes: i64,
    pub erased_row_count: i64,
    pub erased_object_count: i64,
    pub erased_bytes: i64,
    pub problem: String,
}

/// The amount of data that a deletion would delete, and the number of files that prevent it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionPlan {
    /// The number of files, including the trash.
    pub file_count: i64,
    /// The number of stored objects.
    pub object_count: i64,
    /// The total size of the objects.
    pub bytes: i64,
    /// The number of files in retention or under a legal hold.
    pub retained_file_count: i64,
    /// The number of files under a legal hold, which does not expire.
    #[serde(default)]
    pub held_file_count: i64,
    /// When the last retention ends.
    pub retained_until: Option<Timestamp>,
}
