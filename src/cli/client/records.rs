//! The JSON output of commands. Fields have the names of the protobuf fields; sizes are in bytes, digests in
//! hex, times in RFC 3339, and enums by name. New fields may be added; existing ones are never renamed.

use chrono::SecondsFormat;
use prost_types::{Struct, Timestamp, value::Kind};
use serde::Serialize;
use serde_json::{Map, Value};

use super::human;
use crate::proto::v1::{
    ContentRange, CreditBalance, CreditEntry, EntityRef, File, FileSizeLimits, FileVersion,
    GetUsageHistoryResponse, GetUsageResponse, LegalHold, ListTopOwnersResponse, OwnerUsage, Quota,
    QuotaLevel, QuotaState, UsageBreakdown, UsageEntry, UsageSample, Warning,
};

/// A `File` as JSON.
#[derive(Debug, Serialize)]
pub(super) struct FileRecord {
    pub id: String,
    pub name: String,
    pub original_name: String,
    pub mime_type: String,
    pub declared_mime_type: String,
    pub size_bytes: i64,
    pub sha256: String,
    pub category: String,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub metadata: Option<Value>,
    pub owner_id: String,
    pub tenant_id: String,
    pub created_by: String,
    pub updated_by: String,
    pub state: &'static str,
    pub state_reason: &'static str,
    pub visibility: &'static str,
    pub scan: ScanRecord,
    pub version: i32,
    pub revision: i64,
    pub etag: String,
    pub create_time: Option<String>,
    pub update_time: Option<String>,
    pub delete_time: Option<String>,
    pub purge_time: Option<String>,
    pub expire_time: Option<String>,
    pub retention_end_time: Option<String>,
    pub retain_until_time: Option<String>,
    pub legal_hold: Option<Value>,
    pub attachments: Vec<Value>,
    pub download_count: Option<i64>,
    pub last_access_time: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ScanRecord {
    pub status: &'static str,
}

impl From<File> for FileRecord {
    fn from(file: File) -> Self {
        Self {
            state: file.state().as_str_name(),
            state_reason: file.state_reason().as_str_name(),
            visibility: file.visibility().as_str_name(),
            scan: ScanRecord { status: file.scan.unwrap_or_default().status().as_str_name() },
            sha256: hex::encode(&file.sha256),
            download_count: file.download_count,
            last_access_time: rfc3339(file.last_access_time),
            create_time: rfc3339(file.create_time),
            update_time: rfc3339(file.update_time),
            delete_time: rfc3339(file.delete_time),
            purge_time: rfc3339(file.purge_time),
            expire_time: rfc3339(file.expire_time),
            retention_end_time: rfc3339(file.retention_end_time),
            retain_until_time: rfc3339(file.retain_until_time),
            legal_hold: file.legal_hold.map(legal_hold),
            metadata: file.metadata.map(struct_to_json),
            attachments: file.attachments.into_iter().map(attachment).collect(),
            id: file.id,
            name: file.name,
            original_name: file.original_name,
            mime_type: file.mime_type,
            declared_mime_type: file.declared_mime_type,
            size_bytes: file.size_bytes,
            category: file.category,
            title: file.title,
            description: file.description,
            tags: file.tags,
            owner_id: file.owner_id,
            tenant_id: file.tenant_id,
            created_by: file.created_by,
            updated_by: file.updated_by,
            version: file.version,
            revision: file.revision,
            etag: file.etag,
        }
    }
}

fn legal_hold(hold: LegalHold) -> Value {
    serde_json::json!({
        "reason": hold.reason,
        "set_by": hold.set_by,
        "set_time": rfc3339(hold.set_time),
    })
}

pub(super) fn version(version: &FileVersion) -> Value {
    serde_json::json!({
        "version": version.version,
        "is_current": version.is_current,
        "state": version.state().as_str_name(),
        "state_reason": version.state_reason().as_str_name(),
        "mime_type": version.mime_type,
        "declared_mime_type": version.declared_mime_type,
        "size_bytes": version.size_bytes,
        "sha256": hex::encode(&version.sha256),
        "scan": { "status": version.scan.unwrap_or_default().status().as_str_name() },
        "created_by": version.created_by,
        "create_time": rfc3339(version.create_time),
        "change_description": version.change_description,
        "restored_from": version.restored_from,
    })
}

pub(super) fn quota(quota: &Quota) -> Value {
    serde_json::json!({
        "tenant_id": quota.tenant_id,
        "limit_bytes": quota.limit_bytes,
        "used_bytes": quota.used_bytes,
        "reserved_bytes": quota.reserved_bytes,
        "file_count_max": quota.file_count_max,
        "file_count": quota.file_count,
        "reserved_file_count": quota.reserved_file_count,
        "warning_percent": quota.warning_percent,
        "critical_percent": quota.critical_percent,
        "file_size_max_bytes": quota.file_size_max_bytes.as_ref().map(file_size_limits),
        "ceiling_bytes": quota.ceiling_bytes,
        "ceiling_file_count": quota.ceiling_file_count,
        "pending_deletion_bytes": quota.pending_deletion_bytes,
        "pending_deletion_bytes_max": quota.pending_deletion_bytes_max,
        "etag": quota.etag,
        "update_time": rfc3339(quota.update_time),
        "last_warning_sent_time": rfc3339(quota.last_warning_sent_time),
        "alert_emails": quota.alert_emails,
    })
}

/// Returns the name of a level for people.
pub(super) fn level_name(level: QuotaLevel) -> String {
    level.as_str_name().trim_start_matches("QUOTA_LEVEL_").to_lowercase()
}

pub(super) fn quota_state(state: &QuotaState) -> Value {
    serde_json::json!({
        "limit_bytes": state.limit_bytes,
        "used_bytes": state.used_bytes,
        "level": state.level().as_str_name(),
    })
}

pub(super) fn usage(usage: &GetUsageResponse) -> Value {
    serde_json::json!({
        "entries": usage.entries.iter().map(usage_entry).collect::<Vec<_>>(),
        "limit_bytes": usage.limit_bytes,
        "used_bytes": usage.used_bytes,
        "available_bytes": usage.available_bytes,
        "used_percent": usage.used_percent,
        "file_count": usage.file_count,
        "is_lower_bound": usage.is_lower_bound,
        "warning_percent": usage.warning_percent,
        "critical_percent": usage.critical_percent,
        "level": usage.level().as_str_name(),
        "pending_deletion_bytes": usage.pending_deletion_bytes,
        "last_calculated_time": rfc3339(usage.last_calculated_time),
        "breakdown": usage.breakdown.as_ref().map(usage_breakdown),
    })
}

fn usage_breakdown(parts: &UsageBreakdown) -> Value {
    serde_json::json!({
        "file_count": parts.file_count,
        "current_bytes": parts.current_bytes,
        "old_version_count": parts.old_version_count,
        "old_version_bytes": parts.old_version_bytes,
        "trash_file_count": parts.trash_file_count,
        "trash_bytes": parts.trash_bytes,
        "owner_count": parts.owner_count,
        "measure_time": rfc3339(parts.measure_time),
    })
}

pub(super) fn top_owners(page: &ListTopOwnersResponse) -> Value {
    let owner = |owner: &OwnerUsage| {
        serde_json::json!({
            "owner_id": owner.owner_id,
            "total_bytes": owner.total_bytes,
            "file_count": owner.file_count,
            "old_version_bytes": owner.old_version_bytes,
            "trash_file_count": owner.trash_file_count,
            "trash_bytes": owner.trash_bytes,
        })
    };
    serde_json::json!({
        "owners": page.owners.iter().map(owner).collect::<Vec<_>>(),
        "owner_count": page.owner_count,
        "measure_time": rfc3339(page.measure_time),
    })
}

pub(super) fn usage_history(page: &GetUsageHistoryResponse) -> Value {
    let sample = |sample: &UsageSample| {
        serde_json::json!({
            "sample_time": rfc3339(sample.sample_time),
            "used_bytes": sample.used_bytes,
            "limit_bytes": sample.limit_bytes,
            "file_count": sample.file_count,
            "old_version_bytes": sample.old_version_bytes,
            "trash_bytes": sample.trash_bytes,
        })
    };
    serde_json::json!({
        "samples": page.samples.iter().map(sample).collect::<Vec<_>>(),
        "growth_bytes_per_day": page.growth_bytes_per_day,
        "days_until_full": page.days_until_full,
    })
}

pub(super) fn credits(credits: &CreditBalance) -> Value {
    serde_json::json!({
        "user_id": credits.user_id,
        "balance": credits.balance,
        "entry_count": credits.entry_count,
        "update_time": rfc3339(credits.update_time),
    })
}

pub(super) fn credit_entry(entry: &CreditEntry) -> Value {
    serde_json::json!({
        "user_id": entry.user_id,
        "number": entry.number,
        "amount": entry.amount,
        "balance_after": entry.balance_after,
        "reason": entry.reason,
        "reference": entry.reference,
        "created_by": entry.created_by,
        "create_time": rfc3339(entry.create_time),
    })
}

pub(super) fn warning(warning: &Warning) -> Value {
    serde_json::json!({ "code": warning.code().as_str_name(), "message": warning.message })
}

pub(super) fn range(range: &ContentRange) -> Value {
    serde_json::json!({ "offset": range.offset, "length": range.length, "total_bytes": range.total_bytes })
}

fn usage_entry(entry: &UsageEntry) -> Value {
    serde_json::json!({
        "category": entry.category,
        "media_kind": entry.media_kind().as_str_name(),
        "file_count": entry.file_count,
        "total_bytes": entry.total_bytes,
        "average_bytes": entry.average_bytes,
        "percent_of_total": entry.percent_of_total,
    })
}

fn file_size_limits(limits: &FileSizeLimits) -> Value {
    serde_json::json!({
        "other_bytes": limits.other_bytes,
        "video_bytes": limits.video_bytes,
        "image_bytes": limits.image_bytes,
        "document_bytes": limits.document_bytes,
        "audio_bytes": limits.audio_bytes,
    })
}

fn attachment(entity: EntityRef) -> Value {
    serde_json::json!({ "type": entity.r#type, "id": entity.id, "field": entity.field })
}

pub(super) fn time(at: Option<&Timestamp>) -> Option<String> {
    rfc3339(at.copied())
}

pub(super) fn rfc3339(at: Option<Timestamp>) -> Option<String> {
    at.as_ref().and_then(human::time).map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

pub(super) fn struct_to_json(fields: Struct) -> Value {
    Value::Object(
        fields.fields.into_iter().map(|(key, value)| (key, value_to_json(value.kind))).collect::<Map<_, _>>(),
    )
}

fn value_to_json(kind: Option<Kind>) -> Value {
    match kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => Value::from(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::StructValue(value)) => struct_to_json(value),
        Some(Kind::ListValue(list)) => {
            list.values.into_iter().map(|value| value_to_json(value.kind)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::FileState;

    #[test]
    fn file_record_uses_protobuf_names() {
        let file = File {
            id: "0198".to_owned(),
            size_bytes: 1 << 53,
            sha256: bytes::Bytes::from_static(&[0xab, 0x01]),
            state: FileState::Available.into(),
            create_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
            ..File::default()
        };
        let record = serde_json::to_value(FileRecord::from(file)).unwrap();
        assert_eq!(record["size_bytes"], 9_007_199_254_740_992_i64);
        assert_eq!(record["sha256"], "ab01");
        assert_eq!(record["state"], "FILE_STATE_AVAILABLE");
        assert_eq!(record["create_time"], "2023-11-14T22:13:20.005Z");
        assert_eq!(record["delete_time"], Value::Null);
    }
}
