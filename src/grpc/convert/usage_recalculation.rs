//! Conversions of recalculations of usage.

use super::{id, time};
use crate::{
    domain::{
        ids::{RequestId, TenantId},
        usage_recalculation::{RecalculationState, UsageRecalculation},
        violations::Violations,
    },
    proto::v1,
};

/// A request to recalculate the usage.
#[derive(Debug)]
pub(in crate::grpc) struct RecalculateRequest {
    /// The tenant; `None` means that of the caller.
    pub(in crate::grpc) tenant: Option<TenantId>,
    pub(in crate::grpc) request_id: Option<RequestId>,
}

pub(in crate::grpc) fn request_from_proto(
    request: &v1::RecalculateUsageRequest,
) -> Result<RecalculateRequest, Violations> {
    let mut violations = Violations::new();
    let tenant = id::parse_tenant_id(&request.tenant_id, &mut violations);
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    violations.into_result().map(|()| RecalculateRequest { tenant, request_id })
}

pub(in crate::grpc) fn to_proto(recalculation: &UsageRecalculation) -> v1::UsageRecalculation {
    let drift = &recalculation.drift;
    v1::UsageRecalculation {
        tenant_id: recalculation.tenant_id.to_string(),
        state: state_to_proto(recalculation.state).into(),
        request_time: Some(time::to_proto(recalculation.request_time)),
        last_calculated_time: recalculation.calculate_time.map(time::to_proto),
        drift_bytes: drift.used_bytes,
        drift_files: drift.file_count,
        drift_reserved_bytes: drift.reserved_bytes,
        drift_reserved_files: drift.reserved_file_count,
        drift_pending_deletion_bytes: drift.pending_deletion_bytes,
        drift_counters: recalculation.drift_counters,
    }
}

const fn state_to_proto(state: RecalculationState) -> v1::UsageRecalculationState {
    match state {
        RecalculationState::Queued => v1::UsageRecalculationState::Queued,
        RecalculationState::Running => v1::UsageRecalculationState::Running,
        RecalculationState::Done => v1::UsageRecalculationState::Done,
        RecalculationState::LimitExceeded => v1::UsageRecalculationState::LimitExceeded,
    }
}
