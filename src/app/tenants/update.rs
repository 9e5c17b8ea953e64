//! Updates the limits of a tenant, including its ceiling.

use crate::{
    app::{
        App, Error, Principal,
        idempotency::{self, RequestClaim},
        quotas::{
            resolve_tenant::resolve_tenant,
            update::{QuotaUpdate, change_limits, encode_payload},
        },
    },
    db::{TenantTx, idempotency_keys::Method, tenant_records},
    domain::{caller::Operator, ids::TenantId, quota::Quota, tenant_record::TenantRecord},
};

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
    update: QuotaUpdate,
) -> Result<UpdatedTenant, Error> {
    let principal = Principal::Operator(operator.clone());
    let (id, viewer) = resolve_tenant(app, &principal, Some(id)).await?;
    let mut tx = app.db.tenant_tx(id, &viewer).await?;
    let updated = update_in_tx(app, &mut tx, &principal, &update).await;
    let updated = tx.finish(updated).await;
    app.quota_cache.invalidate(id).await;
    updated
}

async fn update_in_tx(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    update: &QuotaUpdate,
) -> Result<UpdatedTenant, Error> {
    let payload = encode_payload(principal, update)?;
    let claim =
        idempotency::claim_request(app, tx, update.request_id, Method::UpdateTenant, &payload).await?;
    let attempt = match claim {
        RequestClaim::Replay(response) => return Ok(response),
        RequestClaim::New(attempt) => attempt,
    };
    let quota = change_limits(tx, principal, update).await?;
    let updated = UpdatedTenant { tenant: tenant_records::get_own(tx).await?, quota };
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &updated).await?;
    }
    Ok(updated)
}
