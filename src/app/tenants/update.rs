//! Updates the limits of a tenant: its ceilings, the limits of its policy that only an operator changes, and its prices.

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
        caller::Operator, ids::TenantId, metering::Metering, policy::RetainRule, quota::Quota,
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
    pub metering: MeteringChange,
}

/// New prices, in credits. Fields that are `None` are left unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct MeteringChange {
    pub download_credits: Option<i64>,
    pub gib_day_credits: Option<i64>,
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
    if update.metering != MeteringChange::default() {
        payload.push(serde_json::to_vec(&update.metering).map_err(Error::internal)?);
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
    change_prices(tx, operator, update.metering).await?;
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

/// Changes the prices and writes the audit entry, if the update changes any.
async fn change_prices(tx: &mut TenantTx, operator: &Operator, change: MeteringChange) -> Result<(), Error> {
    if change == MeteringChange::default() {
        return Ok(());
    }
    let former = tenant_records::get_for_update(tx).await?.metering;
    let metering = Metering {
        download_credits: change.download_credits.unwrap_or(former.download_credits),
        gib_day_credits: change.gib_day_credits.unwrap_or(former.gib_day_credits),
    };
    if metering == former {
        return Ok(());
    }
    let details = serde_json::json!({ "method": "UpdateTenant", "metering": metering });
    audit_entries::insert(tx, &[operator_entry(operator, AuditAction::PolicyUpdate, details)]).await?;
    tenant_records::set_metering(tx, metering).await?;
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
