//! Recalculations of usage: the comparison of a quota with the files of its tenant.

use super::{clock::Timestamp, ids::TenantId, sql_enum::sql_enum};

sql_enum! {
    /// The state of a recalculation.
    RecalculationState {
        /// It was requested.
        Queued = 1 => "queued",
        /// A job runs it.
        Running = 2 => "running",
        /// It is completed, and the drift is repaired.
        Done = 3 => "done",
        /// It is completed, but the actual usage exceeds the limits of the quota, so nothing is repaired.
        LimitExceeded = 4 => "limit_exceeded",
    }
}

/// The newest recalculation of a tenant's usage.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UsageRecalculation {
    pub tenant_id: TenantId,
    pub state: RecalculationState,
    pub request_time: Timestamp,
    /// When the last recalculation was completed. The drift is that of this one.
    pub calculate_time: Option<Timestamp>,
    pub drift: QuotaDrift,
    /// The number of usage counters that were wrong.
    pub drift_counters: i64,
}

/// The values in the row of a quota minus the actual ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct QuotaDrift {
    pub used_bytes: i64,
    pub file_count: i64,
    pub reserved_bytes: i64,
    pub reserved_file_count: i64,
    pub pending_deletion_bytes: i64,
}
