//! Updates the limits of a tenant: its ceilings, and the limits of its policy that only an operator changes.

use std::collections::BTreeMap;

use super::operator_entry;
use crate::{
    app::{
        App, Error, Principal,
        idempotency::{self, RequestClaim},
        quotas::{
            resolve_tenant::{begin_tx, resolve_tenant},
            update::{QuotaUpdate, change_limits, encode_payload},
        },
    },
    db::{
        TenantTx,
        audit_entries::{self, AuditAction},
        idempotency_keys::Method,
        tenant_records, tenants,
    },
    domain::{
        caller::Operator, ids::TenantId, policy::RetainRule, quota::Quota, rate_limits::RequestLimit,
        tenant_record::TenantRecord,
    },
};

/// A request to update a tenant.
#[derive(Debug, Clone)]
pub struct TenantUpdate {
    pub quota: QuotaUpdate,
    pub retain: RetainChange,
    /// Whether the tenant's callers can change anything from now on.
    pub read_only: Option<bool>,
    pub rate_limits: RateLimitsChange,
}

/// New limits of requests of the tenant, by limit. Other limits are left unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimitsChange {
    pub limits: BTreeMap<RequestLimit, u32>,
}

impl RateLimitsChange {
    /// Returns the change with the names of its limits.
    fn to_json(&self) -> serde_json::Value {
        self.limits.iter().map(|(limit, per_second_max)| (limit.key(), *per_second_max)).collect()
    }
}

/// New limits of `retain_until_time`, in days. Fields that are `None` are left unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct RetainChange {
    pub admin_days_max: Option<u32>,
    pub member_days_max: Option<u32>,
}

/// A tenant after an update.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct UpdatedTenant {
    pub tenant: TenantRecord,
    pub quota: Quota,
}

/// Updates the limits of a tenant like `update_quota`, and also returns its record. Both are read in the
/// transaction of the update, so that a retry returns the same response.
///
/// # Errors
/// Returns `Invalid`, `NotFound`, `EtagMismatch` or `QuotaBelowUsage`.
pub async fn update_tenant(
    app: &App,
    operator: &Operator,
    id: TenantId,
    update: TenantUpdate,
) -> Result<UpdatedTenant, Error> {
    let principal = Principal::Operator(operator.clone());
    let (id, viewer) = resolve_tenant(app, &principal, Some(id)).await?;
    let mut tx = begin_tx(app, &principal, id, &viewer).await?;
    let updated = update_in_tx(app, &mut tx, operator, &principal, &update).await;
    let updated = tx.finish(updated).await;
    app.quota_cache.invalidate(id).await;
    app.tenants.invalidate(id).await;
    updated
}

async fn update_in_tx(
    app: &App,
    tx: &mut TenantTx,
    operator: &Operator,
    principal: &Principal,
    update: &TenantUpdate,
) -> Result<UpdatedTenant, Error> {
    let mut payload = encode_payload(principal, &update.quota)?.to_vec();
    // Only if it is sent, so that the payload of other requests is that of earlier releases.
    if update.retain != RetainChange::default() {
        payload.push(serde_json::to_vec(&update.retain).map_err(Error::internal)?);
    }
    if let Some(read_only) = update.read_only {
        payload.push(format!("read_only {read_only}").into_bytes());
    }
    if update.rate_limits != RateLimitsChange::default() {
        payload.push(format!("rate_limits {}", update.rate_limits.to_json()).into_bytes());
    }
    let request_id = update.quota.request_id;
    let claim = idempotency::claim_request(app, tx, request_id, Method::UpdateTenant, &payload).await?;
    let attempt = match claim {
        RequestClaim::Replay(response) => return Ok(response),
        RequestClaim::New(attempt) => attempt,
    };
    if let Some(is_read_only) = update.read_only {
        set_read_only(tx, operator, is_read_only).await?;
    }
    change_rate_limits(tx, operator, &update.rate_limits).await?;
    change_policy(tx, operator, update.retain).await?;
    let quota = change_limits(tx, principal, &update.quota).await?;
    let updated = UpdatedTenant { tenant: tenant_records::get_own(tx).await?, quota };
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &updated).await?;
    }
    Ok(updated)
}

/// Makes the tenant read-only or writable, unless it is already, and writes the audit entry.
async fn set_read_only(tx: &mut TenantTx, operator: &Operator, is_read_only: bool) -> Result<(), Error> {
    if tenant_records::get_for_update(tx).await?.is_read_only == is_read_only {
        return Ok(());
    }
    // Wait for running commits, which do not see the change. Later ones do.
    tenants::lock_file_creation(tx).await?;
    let details = serde_json::json!({ "method": "UpdateTenant", "read_only": is_read_only });
    audit_entries::insert(tx, &[operator_entry(operator, AuditAction::PolicyUpdate, details)]).await?;
    tenant_records::set_read_only(tx, is_read_only).await?;
    Ok(())
}

/// Changes the tenant's own limits of requests and writes the audit entry, unless they are the same already.
async fn change_rate_limits(
    tx: &mut TenantTx,
    operator: &Operator,
    change: &RateLimitsChange,
) -> Result<(), Error> {
    if change.limits.is_empty() {
        return Ok(());
    }
    let current = tenant_records::get_for_update(tx).await?.rate_limits;
    let mut changed = current;
    change.limits.iter().for_each(|(limit, per_second_max)| changed.set(*limit, *per_second_max));
    if changed == current {
        return Ok(());
    }
    let details = serde_json::json!({ "method": "UpdateTenant", "rate_limits": change.to_json() });
    audit_entries::insert(tx, &[operator_entry(operator, AuditAction::PolicyUpdate, details)]).await?;
    tenant_records::set_rate_limits(tx, changed).await?;
    Ok(())
}

/// Changes the policy and writes the audit entry, if the update names a limit of the policy.
async fn change_policy(tx: &mut TenantTx, operator: &Operator, change: RetainChange) -> Result<(), Error> {
    if change == RetainChange::default() {
        return Ok(());
    }
    let mut policy = tenants::get_policy_for_update(tx).await?.policy;
    policy.retain = RetainRule {
        admin_days_max: change.admin_days_max.unwrap_or(policy.retain.admin_days_max),
        member_days_max: change.member_days_max.unwrap_or(policy.retain.member_days_max),
    };
    let details = serde_json::json!({ "method": "UpdateTenant", "retain": change });
    audit_entries::insert(tx, &[operator_entry(operator, AuditAction::PolicyUpdate, details)]).await?;
    tenants::set_policy(tx, policy).await?;
    Ok(())
}
