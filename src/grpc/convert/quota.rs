//! Conversions of quotas, their updates and usage reports.

use super::{id, time, usage};
use crate::{
    app::quotas::{QuotaUpdate, Usage, UsageEntry},
    domain::{
        ids::TenantId,
        media_type::MediaKind,
        quota::{Quota, QuotaChange, QuotaLevel, QuotaState},
        violations::Violations,
    },
    proto::v1,
};

pub(in crate::grpc) fn to_proto(quota: &Quota) -> v1::Quota {
    let sizes = quota.file_size_max_bytes;
    v1::Quota {
        tenant_id: quota.tenant_id.to_string(),
        limit_bytes: quota.limit_bytes,
        used_bytes: quota.used_bytes,
        reserved_bytes: quota.reserved_bytes,
        file_count_max: quota.file_count_max,
        file_count: quota.file_count,
        reserved_file_count: quota.reserved_file_count,
        warning_percent: quota.warning_percent.into(),
        critical_percent: quota.critical_percent.into(),
        file_size_max_bytes: Some(v1::FileSizeLimits {
            other_bytes: sizes.other,
            video_bytes: sizes.video,
            image_bytes: sizes.image,
            document_bytes: sizes.document,
            audio_bytes: sizes.audio,
        }),
        ceiling_bytes: quota.ceiling_bytes,
        ceiling_file_count: quota.ceiling_file_count,
        etag: quota.revision.to_string(),
        update_time: Some(time::to_proto(quota.update_time)),
        pending_deletion_bytes: quota.pending_deletion_bytes,
        pending_deletion_bytes_max: quota.pending_deletion_bytes_max(),
        last_warning_sent_time: quota.last_warning_sent_time.map(time::to_proto),
        alert_emails: quota.alert_emails.clone(),
    }
}

/// Converts the summary of a quota that responses to changes contain.
pub(in crate::grpc) fn state_to_proto(state: QuotaState) -> v1::QuotaState {
    v1::QuotaState {
        limit_bytes: state.limit_bytes,
        used_bytes: state.used_bytes,
        level: level_to_proto(state.level).into(),
    }
}

pub(super) const fn level_to_proto(level: QuotaLevel) -> v1::QuotaLevel {
    match level {
        QuotaLevel::Ok => v1::QuotaLevel::Ok,
        QuotaLevel::Warning => v1::QuotaLevel::Warning,
        QuotaLevel::Critical => v1::QuotaLevel::Critical,
        QuotaLevel::Full => v1::QuotaLevel::Full,
    }
}

/// Parses the optional tenant id of a request.
pub(in crate::grpc) fn parse_tenant_id(text: &str) -> Result<Option<TenantId>, Violations> {
    let mut violations = Violations::new();
    let tenant = id::parse_tenant_id(text, &mut violations);
    violations.into_result().map(|()| tenant)
}

/// A request to update a quota.
#[derive(Debug)]
pub(in crate::grpc) struct UpdateRequest {
    /// The tenant; `None` means that of the caller.
    pub(in crate::grpc) tenant: Option<TenantId>,
    pub(in crate::grpc) update: QuotaUpdate,
}

pub(in crate::grpc) fn update_request_from_proto(
    request: v1::UpdateQuotaRequest,
) -> Result<UpdateRequest, Violations> {
    let mut violations = Violations::new();
    let tenant = id::parse_tenant_id(&request.tenant_id, &mut violations);
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let mask = request.update_mask.unwrap_or_default().paths;
    if mask.is_empty() {
        violations.add("update_mask", "must name at least one field");
    }
    if request.quota.is_none() {
        violations.add("quota", "is required");
    }
    let quota = request.quota.unwrap_or_default();
    let mut change = QuotaChange::default();
    for (index, path) in mask.iter().enumerate() {
        if let Err(problem) = set_field(&mut change, path, &quota, &mut violations) {
            violations.add(format!("update_mask.paths[{index}]"), problem);
        }
    }
    violations.into_result()?;
    Ok(UpdateRequest { tenant, update: QuotaUpdate { change, if_etag: request.if_etag, request_id } })
}

/// Copies the field at `path` to the change.
fn set_field(
    change: &mut QuotaChange,
    path: &str,
    quota: &v1::Quota,
    violations: &mut Violations,
) -> Result<(), &'static str> {
    let sizes = quota.file_size_max_bytes.unwrap_or_default();
    match path {
        "limit_bytes" => change.limit_bytes = Some(quota.limit_bytes),
        "file_count_max" => change.file_count_max = Some(quota.file_count_max),
        "warning_percent" => {
            change.warning_percent =
                parse_percent("quota.warning_percent", quota.warning_percent, violations);
        }
        "critical_percent" => {
            change.critical_percent =
                parse_percent("quota.critical_percent", quota.critical_percent, violations);
        }
        "file_size_max_bytes" => {
            for kind in ["image", "video", "audio", "document", "other"] {
                set_field(change, &format!("file_size_max_bytes.{kind}_bytes"), quota, violations)?;
            }
        }
        "file_size_max_bytes.image_bytes" => change.image_bytes = Some(sizes.image_bytes),
        "file_size_max_bytes.video_bytes" => change.video_bytes = Some(sizes.video_bytes),
        "file_size_max_bytes.audio_bytes" => change.audio_bytes = Some(sizes.audio_bytes),
        "file_size_max_bytes.document_bytes" => change.document_bytes = Some(sizes.document_bytes),
        "file_size_max_bytes.other_bytes" => change.other_bytes = Some(sizes.other_bytes),
        "alert_emails" => change.alert_emails = Some(quota.alert_emails.clone()),
        "ceiling_bytes" => change.ceiling_bytes = Some(quota.ceiling_bytes),
        "ceiling_file_count" => change.ceiling_file_count = Some(quota.ceiling_file_count),
        "tenant_id"
        | "used_bytes"
        | "reserved_bytes"
        | "file_count"
        | "reserved_file_count"
        | "etag"
        | "update_time"
        | "last_warning_sent_time" => return Err("is set by the service and cannot be updated"),
        _ => return Err("is not a field of a quota"),
    }
    Ok(())
}

fn parse_percent(field: &str, value: i32, violations: &mut Violations) -> Option<i16> {
    violations.ok_or_add(field, i16::try_from(value).map_err(|_| "must be from 1 to 100"))
}

pub(in crate::grpc) fn usage_to_proto(usage: Usage) -> v1::GetUsageResponse {
    let Usage { counters, is_lower_bound, quota, level, time, measurement } = usage;
    let file_count = counters.iter().map(|entry| entry.file_count).fold(0, i64::saturating_add);
    let total: i64 = counters.iter().map(|entry| entry.total_bytes).fold(0, i64::saturating_add);
    let used = counters.into_iter().filter(|entry| entry.file_count > 0 || entry.total_bytes > 0);
    v1::GetUsageResponse {
        entries: used.map(|counter| usage_entry_to_proto(counter, total)).collect(),
        limit_bytes: quota.limit_bytes,
        used_bytes: total,
        available_bytes: quota.available_bytes(),
        used_percent: quota.used_percent(),
        file_count,
        warning_percent: quota.warning_percent.into(),
        critical_percent: quota.critical_percent.into(),
        level: level_to_proto(level).into(),
        pending_deletion_bytes: quota.pending_deletion_bytes,
        last_calculated_time: Some(time::to_proto(time)),
        is_lower_bound,
        breakdown: measurement.map(usage::breakdown_to_proto),
    }
}

#[allow(clippy::cast_precision_loss, reason = "a percentage for people needs no precision")]
fn usage_entry_to_proto(entry: UsageEntry, total_bytes: i64) -> v1::UsageEntry {
    let percent = if total_bytes > 0 { entry.total_bytes as f64 * 100.0 / total_bytes as f64 } else { 0.0 };
    v1::UsageEntry {
        category: entry.category,
        media_kind: media_kind_to_proto(entry.media_kind).into(),
        file_count: entry.file_count,
        total_bytes: entry.total_bytes,
        average_bytes: entry.total_bytes.checked_div(entry.file_count).unwrap_or_default(),
        percent_of_total: percent,
    }
}

pub(in crate::grpc) const fn media_kind_to_proto(kind: MediaKind) -> v1::MediaKind {
    match kind {
        MediaKind::Image => v1::MediaKind::Image,
        MediaKind::Video => v1::MediaKind::Video,
        MediaKind::Audio => v1::MediaKind::Audio,
        MediaKind::Document => v1::MediaKind::Document,
        MediaKind::Other => v1::MediaKind::Other,
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
