//! Conversions of quotas of users.

use super::{id, time};
use crate::{
    app::quotas::{UserQuotaPage, UserQuotaUpdate},
    domain::{
        ids::TenantId,
        principal::canonical_id,
        text::{EXTERNAL_ID_CHARACTERS_MAX, check_line},
        user_quota::{UserQuota, UserQuotaChange},
        violations::Violations,
    },
    proto::v1,
};

/// A request to update the quota of a user.
#[derive(Debug)]
pub(in crate::grpc) struct UpdateRequest {
    /// The tenant; `None` means that of the caller.
    pub(in crate::grpc) tenant: Option<TenantId>,
    pub(in crate::grpc) update: UserQuotaUpdate,
}

pub(in crate::grpc) fn update_request_from_proto(
    request: v1::UpdateUserQuotaRequest,
) -> Result<UpdateRequest, Violations> {
    let mut violations = Violations::new();
    let tenant = id::parse_tenant_id(&request.tenant_id, &mut violations);
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let paths = request.update_mask.unwrap_or_default().paths;
    if paths.is_empty() {
        violations.add("update_mask", "must name at least one field");
    }
    let Some(quota) = request.quota else {
        violations.add("quota", "is required");
        return Err(violations);
    };
    let user_id =
        violations.ok_or_add("quota.user_id", check_line(&quota.user_id, EXTERNAL_ID_CHARACTERS_MAX));
    let mut change = UserQuotaChange::default();
    for (index, path) in paths.iter().enumerate() {
        if let Err(problem) = set_field(&mut change, path, &quota) {
            violations.add(format!("update_mask.paths[{index}]"), problem);
        }
    }
    change.check(&mut violations);
    match user_id {
        Some(user_id) if violations.is_empty() => {
            let user_id = canonical_id(&user_id);
            let update = UserQuotaUpdate { user_id, change, if_etag: request.if_etag, request_id };
            Ok(UpdateRequest { tenant, update })
        }
        _ => Err(violations),
    }
}

/// Copies the field at `path` to the change.
fn set_field(change: &mut UserQuotaChange, path: &str, quota: &v1::UserQuota) -> Result<(), &'static str> {
    match path {
        "limit_bytes" => change.limit_bytes = Some(quota.limit_bytes),
        "file_count_max" => change.file_count_max = Some(quota.file_count_max),
        "user_id" => return Err("names the user and cannot be updated"),
        "used_bytes" | "reserved_bytes" | "file_count" | "reserved_file_count" | "etag" | "update_time" => {
            return Err("is set by the service and cannot be updated");
        }
        _ => return Err("is not a field of the quota of a user"),
    }
    Ok(())
}

pub(in crate::grpc) fn to_proto(quota: UserQuota) -> v1::UserQuota {
    let etag = quota.etag();
    v1::UserQuota {
        user_id: quota.user_id,
        limit_bytes: quota.limit_bytes,
        file_count_max: quota.file_count_max,
        used_bytes: quota.used_bytes,
        reserved_bytes: quota.reserved_bytes,
        file_count: quota.file_count,
        reserved_file_count: quota.reserved_file_count,
        etag,
        update_time: (quota.revision > 0).then(|| time::to_proto(quota.update_time)),
    }
}

pub(in crate::grpc) fn page_to_proto(page: UserQuotaPage) -> v1::ListUserQuotasResponse {
    v1::ListUserQuotasResponse {
        quotas: page.quotas.into_iter().map(to_proto).collect(),
        next_page_token: page.next_page_token,
    }
}
