//! The JSON output of tenant commands and exports, with the names of the protobuf fields as in `records`.

use serde_json::{Value, json};

use super::{
    records::{self, FileRecord},
    tenant_rate_limits,
};
use crate::proto::{
    admin::v1::{
        Erasure, ExportTenantResponse, ExportedAuditEntry, ExportedVersion, Tenant, TenantDeletionPlan,
        TenantRateLimits, export_tenant_response::Record,
    },
    v1::{Category, Policy},
};

pub(super) fn tenant(tenant: &Tenant) -> Value {
    let deletion = tenant.deletion.as_ref().map(|deletion| {
        json!({
            "file_count": deletion.file_count,
            "object_count": deletion.object_count,
            "bytes": deletion.bytes,
            "erased_row_count": deletion.erased_row_count,
            "erased_object_count": deletion.erased_object_count,
            "erased_bytes": deletion.erased_bytes,
            "problem": deletion.problem,
        })
    });
    json!({
        "id": tenant.id,
        "kind": tenant.kind().as_str_name(),
        "issuer": tenant.issuer,
        "external_id": tenant.external_id,
        "preset": tenant.preset,
        "state": tenant.state().as_str_name(),
        "state_time": records::time(tenant.state_time.as_ref()),
        "state_reason": tenant.state_reason,
        "create_time": records::time(tenant.create_time.as_ref()),
        "deletion": deletion,
        "read_only": tenant.read_only,
        "rate_limits": tenant.rate_limits.as_ref().map(rate_limits),
    })
}

fn rate_limits(limits: &TenantRateLimits) -> Value {
    tenant_rate_limits::list(limits).into_iter().collect()
}

/// The result of `tenants delete`.
pub(super) fn deletion(deleted: &Tenant, plan: &TenantDeletionPlan) -> Value {
    json!({
        "tenant": tenant(deleted),
        "plan": {
            "file_count": plan.file_count,
            "object_count": plan.object_count,
            "bytes": plan.bytes,
            "retained_file_count": plan.retained_file_count,
            "held_file_count": plan.held_file_count,
            "retained_until_time": records::time(plan.retained_until_time.as_ref()),
        },
    })
}

pub(super) fn erasure(erasure: &Erasure) -> Value {
    json!({
        "id": erasure.id,
        "tenant_id": erasure.tenant_id,
        "file_id": erasure.file_id,
        "reason": erasure.reason,
        "requested_by": erasure.requested_by,
        "request_time": records::time(erasure.request_time.as_ref()),
        "approved_by": erasure.approved_by,
        "approve_time": records::time(erasure.approve_time.as_ref()),
        "expire_time": records::time(erasure.expire_time.as_ref()),
        "use_time": records::time(erasure.use_time.as_ref()),
    })
}

/// A record of an export, as an object with one field that names the type of the record.
pub(super) fn export_record(message: ExportTenantResponse) -> Value {
    match message.record {
        Some(Record::Tenant(record)) => json!({
            "tenant": tenant(&record.tenant.unwrap_or_default()),
            "policy": policy(&record.policy.unwrap_or_default()),
        }),
        Some(Record::Quota(quota)) => json!({ "quota": records::quota(&quota) }),
        Some(Record::File(file)) => json!({ "file": FileRecord::from(file) }),
        Some(Record::Version(record)) => json!({ "version": version(&record) }),
        Some(Record::CreditEntry(entry)) => json!({ "credit_entry": records::credit_entry(&entry) }),
        Some(Record::AuditEntry(record)) => json!({ "audit_entry": audit_entry(&record) }),
        None => Value::Null,
    }
}

fn version(version: &ExportedVersion) -> Value {
    json!({
        "file_id": version.file_id,
        "version": version.version,
        "state": version.state().as_str_name(),
        "size_bytes": version.size_bytes,
        "sha256": hex::encode(&version.sha256),
        "mime_type": version.mime_type,
        "declared_mime_type": version.declared_mime_type,
        "created_by": version.created_by,
        "create_time": records::time(version.create_time.as_ref()),
        "provider": version.provider,
        "storage_key": version.storage_key,
    })
}

fn audit_entry(entry: &ExportedAuditEntry) -> Value {
    json!({
        "create_time": records::time(entry.create_time.as_ref()),
        "actor_kind": entry.actor_kind().as_str_name(),
        "actor_id": entry.actor_id,
        "actor_issuer": entry.actor_issuer,
        "action": entry.action,
        "is_allowed": entry.is_allowed,
        "file_id": entry.file_id,
        "version": entry.version,
        "call_id": entry.call_id,
        "address": entry.address,
        "details": entry.details.clone().map(records::struct_to_json),
    })
}

fn policy(policy: &Policy) -> Value {
    json!({
        "preset": policy.preset,
        "categories": policy.categories.iter().map(category).collect::<Vec<_>>(),
        "types": policy.types,
        "blocked_extensions": policy.blocked_extensions,
        "scan": policy.scan().as_str_name(),
        "write": policy.write().as_str_name(),
        "trash_days": policy.trash_days,
        "trash_counts_against_quota": policy.trash_counts_against_quota,
        "unattached_are_orphans": policy.unattached_are_orphans,
        "read_only": policy.read_only,
        "etag": policy.etag,
    })
}

fn category(category: &Category) -> Value {
    json!({
        "name": category.name,
        "visibility": category.visibility().as_str_name(),
        "read_by_attached_classes": category.read_by_attached_classes,
        "types": category.types,
        "is_default": category.is_default,
    })
}
