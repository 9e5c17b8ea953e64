//! Conversions of erasures, for operators.

use super::{id, time};
use crate::{
    app::tenants::{ErasureRequest, ReclaimedBytes},
    domain::{
        erasure::Erasure,
        ids::{ErasureId, FileId, RequestId, TenantId},
        violations::Violations,
    },
    proto::admin::v1,
};

pub(in crate::grpc) fn to_proto(erasure: Erasure) -> v1::Erasure {
    let (approved_by, approve_time) = match erasure.approval {
        Some(approval) => (approval.by.subject, Some(time::to_proto(approval.time))),
        None => (String::new(), None),
    };
    v1::Erasure {
        id: erasure.id.to_string(),
        tenant_id: erasure.tenant.to_string(),
        file_id: erasure.file.map(|file| file.to_string()).unwrap_or_default(),
        reason: erasure.reason,
        requested_by: erasure.requested_by.subject,
        request_time: Some(time::to_proto(erasure.request_time)),
        approved_by,
        approve_time,
        expire_time: Some(time::to_proto(erasure.expire_time)),
        use_time: erasure.use_time.map(time::to_proto),
    }
}

pub(in crate::grpc) fn reclaimed_to_proto(reclaimed: ReclaimedBytes) -> v1::ReclaimTenantResponse {
    let ReclaimedBytes { object_count, bytes, has_more } = reclaimed;
    v1::ReclaimTenantResponse { object_count, bytes, has_more }
}

pub(in crate::grpc) fn request_from_proto(
    request: v1::RequestErasureRequest,
) -> Result<ErasureRequest, Violations> {
    let mut violations = Violations::new();
    let tenant = parse_uuid::<TenantId>("tenant_id", &request.tenant_id, &mut violations);
    let file = match request.file_id.as_str() {
        "" => None,
        text => parse_uuid::<FileId>("file_id", text, &mut violations),
    };
    if request.reason.is_empty() {
        violations.add("reason", "is required");
    }
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let Some(tenant) = tenant.filter(|_| violations.is_empty()) else { return Err(violations) };
    Ok(ErasureRequest { tenant, file, reason: request.reason, request_id })
}

/// An erasure to approve.
#[derive(Debug)]
pub(in crate::grpc) struct ApprovalIds {
    pub(in crate::grpc) tenant: TenantId,
    pub(in crate::grpc) erasure: ErasureId,
    pub(in crate::grpc) request: Option<RequestId>,
}

pub(in crate::grpc) fn approval_from_proto(
    request: &v1::ApproveErasureRequest,
) -> Result<ApprovalIds, Violations> {
    let mut violations = Violations::new();
    let tenant = parse_uuid::<TenantId>("tenant_id", &request.tenant_id, &mut violations);
    let erasure = parse_uuid::<ErasureId>("erasure_id", &request.erasure_id, &mut violations);
    let request = id::parse_request_id(&request.request_id, &mut violations);
    match (tenant, erasure) {
        (Some(tenant), Some(erasure)) if violations.is_empty() => {
            Ok(ApprovalIds { tenant, erasure, request })
        }
        _ => Err(violations),
    }
}

fn parse_uuid<I: std::str::FromStr>(field: &str, text: &str, violations: &mut Violations) -> Option<I> {
    violations.ok_or_add(field, text.parse::<I>().map_err(|_| "must be a UUID"))
}
