//! Tenants as operators see them.

use super::{file, id, quota, time};
use crate::{
    app::{
        quotas::update::QuotaUpdate,
        tenants::{TenantName, create::NewTenant, export::ExportRecord},
    },
    domain::{
        caller::{TenantKind, TenantState},
        ids::{RequestId, TenantId},
        quota::QuotaChange,
        tenant_record::{Deletion, DeletionPlan, TenantRecord},
        violations::Violations,
    },
    proto::admin::v1::{self, export_tenant_response::Record},
};

/// A tenant on the wire.
pub(in crate::grpc) fn tenant(record: TenantRecord) -> v1::Tenant {
    let is_going = matches!(record.state, TenantState::Deleting | TenantState::Deleted);
    v1::Tenant {
        id: record.id.to_string(),
        kind: kind(record.kind).into(),
        issuer: record.issuer,
        external_id: record.external_id,
        preset: record.preset,
        state: state(record.state).into(),
        state_time: record.state_time.map(time::to_wire),
        state_reason: record.state_reason,
        create_time: Some(time::to_wire(record.create_time)),
        deletion: is_going.then(|| deletion(record.deletion)),
    }
}

fn deletion(deletion: Deletion) -> v1::TenantDeletion {
    v1::TenantDeletion {
        file_count: deletion.file_count,
        object_count: deletion.object_count,
        bytes: deletion.bytes,
        removed_row_count: deletion.removed_row_count,
        removed_object_count: deletion.removed_object_count,
        removed_bytes: deletion.removed_bytes,
        problem: deletion.problem,
    }
}

/// What a deletion would remove.
pub(in crate::grpc) fn plan(plan: &DeletionPlan) -> v1::DeletionPlan {
    v1::DeletionPlan {
        file_count: plan.file_count,
        object_count: plan.object_count,
        bytes: plan.bytes,
        retained_file_count: plan.retained_file_count,
        held_file_count: plan.held_file_count,
        retained_until_time: plan.retained_until.map(time::to_wire),
    }
}

const fn kind(kind: TenantKind) -> v1::TenantKind {
    match kind {
        TenantKind::Organization => v1::TenantKind::Organization,
        TenantKind::Person => v1::TenantKind::Person,
    }
}

const fn state(state: TenantState) -> v1::TenantState {
    match state {
        TenantState::Active => v1::TenantState::Active,
        TenantState::Suspended => v1::TenantState::Suspended,
        TenantState::Deleting => v1::TenantState::Deleting,
        TenantState::Deleted => v1::TenantState::Deleted,
    }
}

/// The tenant that a request names, and its request id.
pub(in crate::grpc) fn named(
    tenant_id: &str,
    request_id: &str,
) -> Result<(TenantId, Option<RequestId>), Violations> {
    let mut wrong = Violations::new();
    let tenant = wrong.take("tenant_id", tenant_id.parse::<TenantId>().map_err(|_| "must be a UUID"));
    let request = id::request_id(request_id, &mut wrong);
    match tenant {
        Some(tenant) => wrong.into_result().map(|()| (tenant, request)),
        None => Err(wrong),
    }
}

/// A tenant to create.
pub(in crate::grpc) fn creation(request: v1::CreateTenantRequest) -> Result<NewTenant, Violations> {
    let mut wrong = Violations::new();
    let found = TenantKind::ALL.iter().find(|known| i32::from(kind(**known)) == request.kind);
    let kind = wrong.take("kind", found.copied().ok_or("must be ORGANIZATION or PERSON"));
    let request_id = id::request_id(&request.request_id, &mut wrong);
    let Some(kind) = kind.filter(|_| wrong.is_empty()) else { return Err(wrong) };
    Ok(NewTenant {
        name: TenantName { kind, issuer: request.issuer, external_id: request.external_id },
        preset: request.preset,
        ceiling_bytes: request.ceiling_bytes,
        ceiling_file_count: request.ceiling_file_count,
        request_id,
    })
}

/// Where a list goes on. The order of births is no secret of anyone's, so the token is the id itself.
pub(in crate::grpc) fn page_token(token: &str) -> Result<Option<TenantId>, Violations> {
    match token {
        "" => Ok(None),
        token => token
            .parse()
            .map(Some)
            .map_err(|_| Violations::one("page_token", "is not one of this list; begin with an empty one")),
    }
}

/// A ceiling to move.
pub(in crate::grpc) fn update(
    request: &v1::UpdateTenantRequest,
) -> Result<(TenantId, QuotaUpdate), Violations> {
    let (tenant, request_id) = named(&request.tenant_id, &request.request_id)?;
    if request.ceiling_bytes.is_none() && request.ceiling_file_count.is_none() {
        return Err(Violations::one("ceiling_bytes", "one of the two ceilings must be set"));
    }
    let change = QuotaChange {
        ceiling_bytes: request.ceiling_bytes,
        ceiling_file_count: request.ceiling_file_count,
        ..QuotaChange::default()
    };
    Ok((tenant, QuotaUpdate { change, etag: String::new(), request_id }))
}

/// A record of an export.
pub(in crate::grpc) fn exported(record: ExportRecord) -> v1::ExportTenantResponse {
    let record = match record {
        ExportRecord::Tenant(record, policy_json) => {
            Record::Tenant(v1::ExportedTenant { tenant: Some(tenant(*record)), policy_json })
        }
        ExportRecord::Quota(told) => Record::Quota(quota::quota(&told)),
        ExportRecord::File(told) => Record::File(file::full(*told)),
        ExportRecord::Version(version) => Record::Version(v1::ExportedVersion {
            file_id: version.file.to_string(),
            version: version.stored.version,
            content_state: version.stored.content_state.as_str().to_owned(),
            size_bytes: file::size(version.stored.blob.size_bytes),
            sha256: super::file::sha256(&version.stored.blob.sha256),
            mime_type: version.mime_type,
            declared_mime_type: version.declared_mime_type,
            created_by: version.created_by,
            create_time: Some(time::to_wire(version.create_time)),
            provider: version.stored.blob.provider,
            storage_key: version.stored.blob.key.to_string(),
        }),
        ExportRecord::Audit(written) => Record::AuditEntry(v1::ExportedAuditEntry {
            create_time: Some(time::to_wire(written.create_time)),
            actor_kind: written.entry.actor.kind.to_string(),
            actor_id: written.entry.actor.id,
            action: written.entry.action.to_string(),
            is_allowed: written.entry.is_allowed,
            file_id: written.entry.file.map(|file| file.to_string()).unwrap_or_default(),
            version: written.entry.version.unwrap_or_default(),
            request_id: written.entry.origin.call_id,
            address: written.entry.origin.address,
            details_json: written.entry.details.to_string(),
        }),
    };
    v1::ExportTenantResponse { record: Some(record) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_with_a_name_is_reported_together() {
        let wrong = named("7", "8").unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["tenant_id", "request_id"]);
        let wrong =
            creation(v1::CreateTenantRequest { request_id: "8".into(), ..Default::default() }).unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["kind", "request_id"]);
        assert!(page_token("x").is_err() && page_token("").unwrap().is_none());
    }
}
