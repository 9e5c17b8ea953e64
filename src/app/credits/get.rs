//! Reads the balance of a user.

use super::resolve_owner;
use crate::{
    app::{
        App, Error, Principal,
        quotas::resolve_tenant::{begin_tx, resolve_tenant},
    },
    db::credits,
    domain::{credits::CreditBalance, ids::TenantId},
};

/// Returns the credits of a user; by default those of the caller. A user without entries has no credits: there is no
/// directory of users, so any id is accepted.
///
/// # Errors
/// Returns `NotFound` for another tenant, `NotAllowed` if the caller may not read the credits of this user, and
/// `Invalid` if an operator names no user.
pub async fn get_credits(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    user_id: Option<String>,
) -> Result<CreditBalance, Error> {
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let user_id = resolve_owner(app, principal, user_id).await?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let found = credits::get(&mut tx, &user_id).await;
    let found = tx.finish(found).await?;
    Ok(found.unwrap_or(CreditBalance { user_id, balance: 0, entry_count: 0, update_time: None }))
}
