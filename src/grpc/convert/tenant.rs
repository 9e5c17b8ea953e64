//! Conversions of tenants, their deletion and export, for operators.

use super::{credits, file, id, policy, quota, rate_limits, structs, time};
use crate::{
    app::{
        quotas::QuotaUpdate,
        tenants::{ExportRecord, NewTenant, RateLimitsChange, RetainChange, TenantName, TenantUpdate},
    },
    domain::{
        caller::{ActorKind, TenantKind, TenantState},
        file::project_state,
        file_fields::RETENTION_DAYS_MAX,
        ids::{RequestId, TenantId},
        quota::QuotaChange,
        tenant_record::{DeletionPlan, DeletionProgress, TenantRecord},
        violations::Violations,
    },
    proto::admin::v1::{self, export_tenant_response::Record},
};

pub(in crate::grpc) fn to_proto(record: TenantRecord) -> v1::Tenant {
    let is_deleting = matches!(record.state, TenantState::Deleting | TenantState::Deleted);
    v1::Tenant {
        id: record.id.to_string(),
        kind: kind_to_proto(record.kind).into(),
        issuer: record.issuer,
        external_id: record.external_id,
        preset: record.preset,
        state: state_to_proto(record.state).into(),
        state_time: record.state_time.map(time::to_proto),
        state_reason: record.state_reason,
        create_time: Some(time::to_proto(record.create_time)),
        deletion: is_deleting.then(|| deletion_to_proto(record.deletion)),
        read_only: record.is_read_only,
        rate_limits: rate_limits::to_proto(record.rate_limits),
    }
}

fn deletion_to_proto(deletion: DeletionProgress) -> v1::TenantDeletion {
    v1::TenantDeletion {
        file_count: deletion.file_count,
        object_count: deletion.object_count,
        bytes: deletion.bytes,
        erased_row_count: deletion.erased_row_count,
        erased_object_count: deletion.erased_object_count,
        erased_bytes: deletion.erased_bytes,
        problem: deletion.problem,
    }
}

pub(in crate::grpc) fn deletion_plan_to_proto(plan: &DeletionPlan) -> v1::TenantDeletionPlan {
    v1::TenantDeletionPlan {
        file_count: plan.file_count,
        object_count: plan.object_count,
        bytes: plan.bytes,
        retained_file_count: plan.retained_file_count,
        held_file_count: plan.held_file_count,
        retained_until_time: plan.retained_until.map(time::to_proto),
    }
}

const fn kind_to_proto(kind: TenantKind) -> v1::TenantKind {
    match kind {
        TenantKind::Organization => v1::TenantKind::Organization,
        TenantKind::Person => v1::TenantKind::Person,
    }
}

const fn state_to_proto(state: TenantState) -> v1::TenantState {
    match state {
        TenantState::Active => v1::TenantState::Active,
        TenantState::Suspended => v1::TenantState::Suspended,
        TenantState::Deleting => v1::TenantState::Deleting,
        TenantState::Deleted => v1::TenantState::Deleted,
    }
}

pub(in crate::grpc) fn parse_tenant_id(text: &str) -> Result<TenantId, Violations> {
    text.parse().map_err(|_| Violations::one("tenant_id", "must be a UUID"))
}

/// The ids of a change to a tenant.
#[derive(Debug)]
pub(in crate::grpc) struct TenantChangeIds {
    pub(in crate::grpc) tenant: TenantId,
    pub(in crate::grpc) request: Option<RequestId>,
}

pub(in crate::grpc) fn parse_tenant_change(
    tenant_id: &str,
    request_id: &str,
) -> Result<TenantChangeIds, Violations> {
    let mut violations = Violations::new();
    let tenant =
        violations.ok_or_add("tenant_id", tenant_id.parse::<TenantId>().map_err(|_| "must be a UUID"));
    let request = id::parse_request_id(request_id, &mut violations);
    match tenant {
        Some(tenant) => violations.into_result().map(|()| TenantChangeIds { tenant, request }),
        None => Err(violations),
    }
}

pub(in crate::grpc) fn create_request_from_proto(
    request: v1::CreateTenantRequest,
) -> Result<NewTenant, Violations> {
    let mut violations = Violations::new();
    let found = TenantKind::ALL.iter().find(|known| i32::from(kind_to_proto(**known)) == request.kind);
    let kind = violations.ok_or_add("kind", found.copied().ok_or("must be ORGANIZATION or PERSON"));
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let Some(kind) = kind.filter(|_| violations.is_empty()) else { return Err(violations) };
    Ok(NewTenant {
        name: TenantName { kind, issuer: request.issuer, external_id: request.external_id },
        preset: request.preset,
        ceiling_bytes: request.ceiling_bytes,
        ceiling_file_count: request.ceiling_file_count,
        request_id,
    })
}

/// Parses a page token, which is the id of the last tenant of the previous page. The order in which tenants
/// were created is not secret, so the token needs no encryption.
pub(in crate::grpc) fn parse_page_token(token: &str) -> Result<Option<TenantId>, Violations> {
    match token {
        "" => Ok(None),
        token => token.parse().map(Some).map_err(|_| {
            Violations::one("page_token", "is not a page token of this list; begin with an empty one")
        }),
    }
}

/// A request to update the ceilings and limits of a tenant.
pub(in crate::grpc) struct UpdateRequest {
    pub(in crate::grpc) tenant: TenantId,
    pub(in crate::grpc) update: TenantUpdate,
}

/// The fields of a tenant that can be updated.
const UPDATE_PATHS: [&str; 14] = [
    "ceiling_bytes",
    "ceiling_file_count",
    "pending_deletion_multiple",
    "retain_admin_days_max",
    "retain_member_days_max",
    "read_only",
    "rate_limits",
    "rate_limits.tenant_requests_per_second",
    "rate_limits.caller_requests_per_second",
    "rate_limits.caller_reads_per_second",
    "rate_limits.caller_lists_per_second",
    "rate_limits.caller_downloads_per_second",
    "rate_limits.caller_uploads_per_second",
    "rate_limits.caller_changes_per_second",
];

pub(in crate::grpc) fn update_request_from_proto(
    request: v1::UpdateTenantRequest,
) -> Result<UpdateRequest, Violations> {
    let mut violations = Violations::new();
    let tenant = violations
        .ok_or_add("tenant_id", request.tenant_id.parse::<TenantId>().map_err(|_| "must be a UUID"));
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let paths = request.update_mask.unwrap_or_default().paths;
    if paths.is_empty() || paths.len() > UPDATE_PATHS.len() {
        violations.add("update_mask", format!("must name one or more of {}", UPDATE_PATHS.join(", ")));
        return Err(violations);
    }
    let (mut change, mut retain, mut read_only) = (QuotaChange::default(), RetainChange::default(), None);
    let (limits, mut limits_change) = (request.rate_limits.unwrap_or_default(), RateLimitsChange::default());
    for (index, path) in paths.iter().enumerate() {
        match path.as_str() {
            _ if paths[..index].contains(path) => {
                violations.add(format!("update_mask.paths[{index}]"), "is repeated");
            }
            "ceiling_bytes" => change.ceiling_bytes = Some(request.ceiling_bytes),
            "ceiling_file_count" => change.ceiling_file_count = Some(request.ceiling_file_count),
            "pending_deletion_multiple" => {
                change.pending_deletion_multiple = Some(request.pending_deletion_multiple);
            }
            "retain_admin_days_max" => {
                retain.admin_days_max =
                    parse_days("retain_admin_days_max", request.retain_admin_days_max, &mut violations);
            }
            "retain_member_days_max" => {
                retain.member_days_max =
                    parse_days("retain_member_days_max", request.retain_member_days_max, &mut violations);
            }
            "read_only" => read_only = Some(request.read_only),
            path if UPDATE_PATHS.contains(&path) => {
                let named = rate_limits::find_limits(path);
                rate_limits::add_limits(&mut limits_change, &named, &limits, &mut violations);
            }
            _ => violations.add(
                format!("update_mask.paths[{index}]"),
                format!("must be one of {}", UPDATE_PATHS.join(", ")),
            ),
        }
    }
    match tenant {
        Some(tenant) if violations.is_empty() => {
            let quota = QuotaUpdate { change, if_etag: request.if_etag, request_id };
            let update = TenantUpdate { quota, retain, read_only, rate_limits: limits_change };
            Ok(UpdateRequest { tenant, update })
        }
        _ => Err(violations),
    }
}

fn parse_days(field: &str, days: i32, violations: &mut Violations) -> Option<u32> {
    let allowed = u32::try_from(days).ok().filter(|_| days <= RETENTION_DAYS_MAX);
    let problem = || format!("must be from 0 to {RETENTION_DAYS_MAX}, is {days}");
    violations.ok_or_add(field, allowed.ok_or_else(problem))
}

pub(in crate::grpc) fn export_record_to_proto(record: ExportRecord) -> v1::ExportTenantResponse {
    let record = match record {
        ExportRecord::Tenant(record, policy) => {
            let policy = Some(policy::to_proto(*policy));
            Record::Tenant(v1::ExportedTenant { tenant: Some(to_proto(*record)), policy })
        }
        ExportRecord::Quota(quota) => Record::Quota(quota::to_proto(&quota)),
        ExportRecord::File(file) => Record::File(file::to_full_proto(*file)),
        ExportRecord::Version(version) => Record::Version(v1::ExportedVersion {
            file_id: version.file.to_string(),
            version: version.stored.version,
            state: file::state_to_proto(project_state(version.stored.content_state, false, false)).into(),
            size_bytes: file::size_to_proto(version.stored.blob.size_bytes),
            sha256: file::digest_to_proto(version.stored.blob.hashes.map(|hashes| hashes.sha256)),
            mime_type: version.stored.mime_type,
            declared_mime_type: version.declared_mime_type,
            created_by: version.stored.created_by,
            create_time: Some(time::to_proto(version.create_time)),
            provider: version.stored.blob.provider,
            storage_key: version.stored.blob.key.to_string(),
        }),
        ExportRecord::Credit(entry) => Record::CreditEntry(credits::entry_to_proto(*entry)),
        ExportRecord::Audit(audit) => Record::AuditEntry(v1::ExportedAuditEntry {
            create_time: Some(time::to_proto(audit.create_time)),
            actor_kind: actor_kind_to_proto(audit.entry.actor.kind).into(),
            actor_id: audit.entry.actor.id,
            actor_issuer: audit.entry.actor_issuer.unwrap_or_default(),
            action: audit.entry.action.to_string(),
            is_allowed: audit.entry.is_allowed,
            file_id: audit.entry.file.map(|file| file.to_string()).unwrap_or_default(),
            version: audit.entry.version,
            call_id: audit.entry.origin.call_id,
            address: audit.entry.origin.address,
            details: audit_details_to_proto(audit.entry.details),
        }),
    };
    v1::ExportTenantResponse { record: Some(record) }
}

const fn actor_kind_to_proto(kind: ActorKind) -> v1::ActorKind {
    match kind {
        ActorKind::User => v1::ActorKind::User,
        ActorKind::Service => v1::ActorKind::Service,
        ActorKind::Operator => v1::ActorKind::Operator,
        ActorKind::System => v1::ActorKind::System,
    }
}

/// Converts the details of an audit entry, which are always a JSON object.
fn audit_details_to_proto(details: serde_json::Value) -> Option<prost_types::Struct> {
    match details {
        serde_json::Value::Object(map) => Some(structs::to_proto(map)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_of_tenant_requests_are_reported() {
        let violations = parse_tenant_change("7", "8").unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["tenant_id", "request_id"]);
        let violations = create_request_from_proto(v1::CreateTenantRequest {
            request_id: "8".into(),
            ..Default::default()
        })
        .unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["kind", "request_id"]);
        let violations = update_request_from_proto(v1::UpdateTenantRequest {
            tenant_id: "7".into(),
            rate_limits: Some(v1::TenantRateLimits {
                caller_uploads_per_second: -1,
                caller_requests_per_second: 1_000_001,
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: ["rate_limits", "rate_limits.x"].map(str::to_owned).to_vec(),
            }),
            ..Default::default()
        })
        .err()
        .unwrap();
        let described = violations.iter().map(|violation| (violation.field.as_str(), &violation.description));
        let described: Vec<String> =
            described.map(|(field, description)| format!("{field} {description}")).collect();
        assert_eq!(
            described[..3],
            [
                "tenant_id must be a UUID",
                "rate_limits.caller_requests_per_second must be from 0 to 1000000, is 1000001",
                "rate_limits.caller_uploads_per_second must be from 0 to 1000000, is -1",
            ]
        );
        assert!(described[3].starts_with("update_mask.paths[1] must be one of"), "{described:?}");
        assert!(parse_page_token("x").is_err() && parse_page_token("").unwrap().is_none());
    }
}
