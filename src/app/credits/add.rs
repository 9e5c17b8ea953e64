//! Adds credits to a user.

use super::{CreditChange, RequestClaim, actor_of, audit_change, check_may_write, claim_request};
use crate::{
    app::{
        App, Error, Principal,
        quotas::resolve_tenant::{begin_tx, resolve_tenant},
    },
    db::{TenantTx, audit_entries::AuditAction, credits, idempotency_keys::Method},
    domain::{
        credits::{BALANCE_MAX, CreditEntry},
        ids::TenantId,
        violations::Violations,
    },
};

/// Adds credits to a user of the caller's tenant, or of the tenant that an operator names.
///
/// # Errors
/// Returns `NotAllowed` without the scope, `NotFound` for another tenant, and `Invalid` if the balance would exceed
/// [`BALANCE_MAX`].
pub async fn add_credits(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    change: CreditChange,
) -> Result<CreditEntry, Error> {
    check_may_write(principal)?;
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let entry = add_in_tx(app, &mut tx, principal, &change).await;
    tx.finish(entry).await
}

async fn add_in_tx(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    change: &CreditChange,
) -> Result<CreditEntry, Error> {
    let attempt = match claim_request(app, tx, principal, change, Method::AddCredits).await? {
        RequestClaim::Replay(entry) => return Ok(entry),
        RequestClaim::New(attempt) => attempt,
    };
    let added = credits::add(tx, change.entry(actor_of(principal))).await?;
    let entry = added.ok_or_else(|| {
        let description = format!("must not raise the balance above {BALANCE_MAX}, is {}", change.amount);
        Error::from(Violations::one("amount", description))
    })?;
    audit_change(tx, principal, AuditAction::CreditAdd, &entry).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &entry).await?;
    }
    Ok(entry)
}
