//! Deducts credits of a user.

use super::{CreditChange, RequestClaim, actor_of, audit_change, check_may_write, claim_request};
use crate::{
    app::{
        App, Error, Principal,
        quotas::resolve_tenant::{begin_tx, resolve_tenant},
    },
    db::{
        TenantTx,
        audit_entries::AuditAction,
        credits::{self, NewCreditEntry},
        idempotency_keys::Method,
    },
    domain::{credits::CreditEntry, ids::TenantId},
};

/// Deducts credits of a user of the caller's tenant, or of the tenant that an operator names. The balance is never
/// negative.
///
/// # Errors
/// Returns `NotAllowed` without the scope, `NotFound` for another tenant, and `CreditsExhausted` if the user has too
/// few credits.
pub async fn deduct_credits(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    change: CreditChange,
) -> Result<CreditEntry, Error> {
    check_may_write(principal)?;
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let entry = deduct_in_tx(app, &mut tx, principal, &change).await;
    tx.finish(entry).await
}

async fn deduct_in_tx(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    change: &CreditChange,
) -> Result<CreditEntry, Error> {
    let attempt = match claim_request(app, tx, principal, change, Method::DeductCredits).await? {
        RequestClaim::Replay(entry) => return Ok(entry),
        RequestClaim::New(attempt) => attempt,
    };
    let entry = take_credits(tx, change.entry(actor_of(principal))).await?;
    audit_change(tx, principal, AuditAction::CreditDeduct, &entry).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &entry).await?;
    }
    Ok(entry)
}

/// Deducts credits in the transaction of the act that costs them.
///
/// # Errors
/// Returns `CreditsExhausted` with the balance, which is locked then, if the user has too few credits.
pub(super) async fn take_credits(tx: &mut TenantTx, new: NewCreditEntry<'_>) -> Result<CreditEntry, Error> {
    if let Some(entry) = credits::deduct(tx, new).await? {
        return Ok(entry);
    }
    // Credits may have been added since, so the balance is locked before it is reported.
    let balance = credits::get_for_update(tx, new.user_id).await?.map_or(0, |credits| credits.balance);
    let exhausted = Error::CreditsExhausted { balance, required: new.amount };
    if balance < new.amount {
        return Err(exhausted);
    }
    credits::deduct(tx, new).await?.ok_or(exhausted)
}
