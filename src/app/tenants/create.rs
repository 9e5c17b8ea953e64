//! Creates a tenant by hand, before anyone of it was seen or again after it was deleted.

use super::entry;
use crate::{
    app::{App, Error},
    db::{
        SystemTx,
        audit_entries::{self, AuditAction},
        quotas,
        tenant_records::{self, Birth},
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

/// What to create.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// What the identity provider calls it.
    pub name: TenantName,
    /// The preset it is born with; empty means the configured one.
    pub preset: String,
    /// The operator's ceiling and its first limit, in bytes; none means the preset's.
    pub ceiling_bytes: Option<i64>,
    /// The same for the number of files; 0 means none.
    pub ceiling_file_count: Option<i64>,
    /// Makes a retry safe.
    pub request_id: Option<RequestId>,
}

/// Creates a tenant.
///
/// # Errors
/// `Invalid` with every violation, `TenantExists`, `RequestIdReused`.
pub async fn create(app: &App, operator: &Operator, asked: NewTenant) -> Result<TenantRecord, Error> {
    let policy = check(app, &asked)?;
    let request = asked.request_id.map(|id| (id, fingerprint(operator, &asked)));
    let id = TenantId::from_uuid(app.ids.uuid());
    let mut tx = app.db.system_tx().await?;
    if request.is_some() {
        tx.note_request_id();
    }
    if let Some((request, payload)) = request
        && let Some((record, said)) = tenant_records::created_by(&mut tx, request).await?
    {
        tx.commit().await?;
        return if said == payload { Ok(record) } else { Err(Error::RequestIdReused) };
    }
    let birth = Birth { id, name: &asked.name, policy: &policy, request };
    if !tenant_records::create(&mut tx, &birth).await? {
        return taken(&mut tx, &asked.name, request).await;
    }
    quotas::create(&mut tx, id, &policy.quota).await?;
    let details = serde_json::json!({
        "kind": asked.name.kind, "issuer": asked.name.issuer, "preset": policy.name,
        "ceiling_bytes": policy.quota.limit_bytes, "ceiling_file_count": policy.quota.file_count_max,
    });
    let entry = entry(operator, AuditAction::TenantCreate, details);
    audit_entries::insert_for(&mut tx, id, &[entry]).await?;
    let record = tenant_records::get(&mut tx, id).await?.ok_or(Error::NotFound("tenant"))?;
    tx.commit().await?;
    // Whoever asked before may be remembered as deleted.
    app.tenants.forget_name(&asked.name).await;
    Ok(record)
}

/// Somebody was faster: the same request, or another one for the same name.
async fn taken(
    tx: &mut SystemTx,
    name: &TenantName,
    request: Option<(RequestId, Digest)>,
) -> Result<TenantRecord, Error> {
    if let Some((request, payload)) = request
        && let Some((record, said)) = tenant_records::created_by(tx, request).await?
    {
        return if said == payload { Ok(record) } else { Err(Error::RequestIdReused) };
    }
    let there = tenants::find(tx, name).await?.ok_or(Error::NotFound("tenant"))?;
    Err(Error::TenantExists(there.id))
}

/// Everything that can be wrong; answers the policy with the ceiling in it.
fn check(app: &App, asked: &NewTenant) -> Result<Policy, Error> {
    let mut wrong = Violations::new();
    wrong.take("issuer", text::line(&asked.name.issuer, ISSUER_CHARACTERS_MAX));
    wrong.take("external_id", text::line(&asked.name.external_id, EXTERNAL_ID_CHARACTERS_MAX));
    let preset = match asked.preset.as_str() {
        "" => app.limits.tenants.preset_of(&asked.name.external_id),
        preset => preset,
    };
    let policy = wrong.take("preset", Policy::preset(preset));
    for (field, value) in
        [("ceiling_bytes", asked.ceiling_bytes), ("ceiling_file_count", asked.ceiling_file_count)]
    {
        if value.is_some_and(|value| !(0..=LIMIT_BYTES_MAX).contains(&value)) {
            wrong.add(field, format!("must be from 0 to {LIMIT_BYTES_MAX}"));
        }
    }
    wrong.clone().into_result()?;
    let Some(mut policy) = policy else { return Err(wrong.into()) };
    let quota = &mut policy.quota;
    quota.limit_bytes = asked.ceiling_bytes.unwrap_or(quota.limit_bytes);
    quota.file_count_max = asked.ceiling_file_count.unwrap_or(quota.file_count_max);
    Ok(policy)
}

fn fingerprint(operator: &Operator, asked: &NewTenant) -> Digest {
    let NewTenant { name, preset, ceiling_bytes, ceiling_file_count, .. } = asked;
    let numbers = serde_json::json!([name.kind, ceiling_bytes, ceiling_file_count]).to_string();
    let mut hasher = Hasher::default();
    for field in [&operator.actor.id, &name.issuer, &name.external_id, preset, &numbers] {
        hasher.field(field.as_bytes());
    }
    hasher.finish()
}
