//! Moves the ceiling of a tenant.

use crate::{
    app::{
        App, Error, Principal,
        idempotency::{self, Begun},
        quotas::{
            subject::subject,
            update::{QuotaUpdate, change, payload},
        },
    },
    db::{TenantTx, idempotency_keys::Method, tenant_records},
    domain::{caller::Operator, ids::TenantId, quota::Quota, tenant_record::TenantRecord},
};

/// A tenant after a change.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Updated {
    /// The tenant.
    pub tenant: TenantRecord,
    /// Its quota.
    pub quota: Quota,
}

/// Changes the limits of a tenant as `quotas::update` does, and answers its record as well. Both are of the change's own
/// transaction, so that a retry is told what the first time was.
///
/// # Errors
/// `Invalid`, `NotFound`, `QuotaBelowUsage`.
pub async fn update(
    app: &App,
    operator: &Operator,
    id: TenantId,
    asked: QuotaUpdate,
) -> Result<Updated, Error> {
    let principal = Principal::Operator(operator.clone());
    let (id, viewer) = subject(app, &principal, Some(id)).await?;
    let mut tx = app.db.tenant_tx(id, &viewer).await?;
    let updated = run(app, &mut tx, &principal, &asked).await;
    let updated = tx.finish(updated).await;
    app.recent_quotas.forget(id).await;
    updated
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    asked: &QuotaUpdate,
) -> Result<Updated, Error> {
    let payload = payload(principal, asked)?;
    let begun = idempotency::begin(app, tx, asked.request_id, Method::UpdateTenant, &payload).await?;
    let attempt = match begun {
        Begun::Replay(answer) => return Ok(answer),
        Begun::Fresh(attempt) => attempt,
    };
    let quota = change(tx, principal, asked).await?;
    let updated = Updated { tenant: tenant_records::get_own(tx).await?, quota };
    if let Some(attempt) = attempt {
        attempt.record(tx, &updated).await?;
    }
    Ok(updated)
}
