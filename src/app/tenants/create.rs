//! Creates a tenant explicitly: before the first request of one of its members, or again after it was
//! deleted.

use super::{first_call::confirm_in_tx, operator_entry};
use crate::{
    app::{App, Error, Resource},
    db::{
        SystemTx,
        audit_entries::{self, AuditAction},
        idempotency_keys::RequestKey,
        provisional_tenants, quotas,
        tenant_records::{self, TenantCreation},
        tenants::{self, TenantName},
    },
    domain::{
        caller::Operator,
        digest::{Digest, Hasher},
        ids::{RequestId, TenantId},
        policy::Policy,
        quota::LIMIT_BYTES_MAX,
        tenant_record::{ISSUER_CHARACTERS_MAX, TenantRecord},
        text::{self, EXTERNAL_ID_CHARACTERS_MAX},
        violations::Violations,
    },
};

/// A request to create a tenant.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// The name of the tenant at its identity provider.
    pub name: TenantName,
    /// The policy preset; empty means the configured one.
    pub preset: String,
    /// The operator's ceiling and the initial limit, in bytes; `None` means the value of the preset.
    pub ceiling_bytes: Option<i64>,
    /// The same for the number of files; 0 means no limit.
    pub ceiling_file_count: Option<i64>,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// Creates a tenant.
///
/// # Errors
/// Returns `Invalid` with every violation, `TenantExists` or `RequestIdReused`.
pub async fn create_tenant(
    app: &App,
    operator: &Operator,
    new_tenant: NewTenant,
) -> Result<TenantRecord, Error> {
    let policy = check_request(app, &new_tenant)?;
    let request_key =
        new_tenant.request_id.map(|id| RequestKey { id, payload: hash_request(operator, &new_tenant) });
    let id = TenantId::from_uuid(app.ids.uuid());
    let mut tx = app.db.operator_tx().await?;
    if request_key.is_some() {
        tx.note_request_id();
    }
    if let Some(request) = request_key
        && let Some((record, stored_payload)) =
            tenant_records::find_by_create_request(&mut tx, request.id).await?
    {
        tx.commit().await?;
        return if stored_payload == request.payload { Ok(record) } else { Err(Error::RequestIdReused) };
    }
    let creation = TenantCreation { id, name: &new_tenant.name, policy: &policy, request: request_key };
    if !tenant_records::create(&mut tx, &creation).await? {
        return resolve_conflict(app, tx, &new_tenant.name, request_key).await;
    }
    quotas::create(&mut tx, id, &policy.quota).await?;
    let details = serde_json::json!({
        "kind": new_tenant.name.kind, "issuer": new_tenant.name.issuer, "preset": policy.name,
        "ceiling_bytes": policy.quota.limit_bytes, "ceiling_file_count": policy.quota.file_count_max,
    });
    let entry = operator_entry(operator, AuditAction::TenantCreate, details);
    audit_entries::insert_for(&mut tx, id, &[entry]).await?;
    let record = tenant_records::get(&mut tx, id).await?.ok_or(Error::NotFound(Resource::Tenant))?;
    tx.commit().await?;
    // An earlier tenant with this name may still be cached as deleted.
    app.tenants.invalidate_name(&new_tenant.name).await;
    Ok(record)
}

/// Handles a name that is already in use: returns the tenant if a concurrent attempt of the same request
/// created it, and `TenantExists` otherwise. A provisional tenant exists from then on, as if its first call had
/// succeeded before.
async fn resolve_conflict(
    app: &App,
    mut tx: SystemTx,
    name: &TenantName,
    request_key: Option<RequestKey>,
) -> Result<TenantRecord, Error> {
    if let Some(request) = request_key
        && let Some((record, stored_payload)) =
            tenant_records::find_by_create_request(&mut tx, request.id).await?
    {
        return if stored_payload == request.payload { Ok(record) } else { Err(Error::RequestIdReused) };
    }
    if let Some(provisional) = provisional_tenants::join(&mut tx, name).await? {
        confirm_in_tx(&mut tx, provisional.id).await?;
        tx.commit().await?;
        app.tenants.forget_unknown(name).await;
        return Err(Error::TenantExists(provisional.id));
    }
    let existing = tenants::find_by_name(&mut tx, name).await?.ok_or(Error::NotFound(Resource::Tenant))?;
    Err(Error::TenantExists(existing.id))
}

/// Validates the request and returns the policy, which includes the ceiling.
fn check_request(app: &App, new_tenant: &NewTenant) -> Result<Policy, Error> {
    let mut violations = Violations::new();
    violations.ok_or_add("issuer", text::check_line(&new_tenant.name.issuer, ISSUER_CHARACTERS_MAX));
    violations
        .ok_or_add("external_id", text::check_line(&new_tenant.name.external_id, EXTERNAL_ID_CHARACTERS_MAX));
    let preset = match new_tenant.preset.as_str() {
        "" => {
            let TenantName { kind, issuer, external_id } = &new_tenant.name;
            app.limits.presets.find(*kind, issuer, external_id)
        }
        preset => preset,
    };
    let policy = violations.ok_or_add("preset", Policy::preset(preset));
    for (field, value) in
        [("ceiling_bytes", new_tenant.ceiling_bytes), ("ceiling_file_count", new_tenant.ceiling_file_count)]
    {
        if value.is_some_and(|value| !(0..=LIMIT_BYTES_MAX).contains(&value)) {
            violations.add(field, format!("must be from 0 to {LIMIT_BYTES_MAX}"));
        }
    }
    violations.clone().into_result()?;
    let Some(mut policy) = policy else { return Err(violations.into()) };
    let quota = &mut policy.quota;
    quota.limit_bytes = new_tenant.ceiling_bytes.unwrap_or(quota.limit_bytes);
    quota.file_count_max = new_tenant.ceiling_file_count.unwrap_or(quota.file_count_max);
    Ok(policy)
}

fn hash_request(operator: &Operator, new_tenant: &NewTenant) -> Digest {
    let NewTenant { name, preset, ceiling_bytes, ceiling_file_count, .. } = new_tenant;
    let numbers = serde_json::json!([name.kind, ceiling_bytes, ceiling_file_count]).to_string();
    let mut hasher = Hasher::default();
    for field in [&operator.id(), &name.issuer, &name.external_id, preset, &numbers] {
        hasher.field(field.as_bytes());
    }
    hasher.finish()
}
