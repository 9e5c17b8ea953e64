//! Changes the limits of a tenant: its admins below the operator's ceiling, the operator also that.

use super::subject::subject;
use crate::{
    app::{
        App, Error, Principal, access, audit,
        idempotency::{self, Begun},
        preconditions::check_etag,
    },
    db::{
        TenantTx,
        audit_entries::{self, AuditAction, AuditEntry},
        idempotency_keys::Method,
        quotas,
    },
    domain::{
        caller::{Actor, Caller},
        ids::{RequestId, TenantId},
        quota::{Quota, QuotaChange},
    },
};

/// What to change.
#[derive(Debug, Clone)]
pub struct QuotaUpdate {
    /// The new values.
    pub change: QuotaChange,
    /// The etag that the caller read, or empty.
    pub if_etag: String,
    /// Makes a retry safe.
    pub request_id: Option<RequestId>,
}

/// Changes the limits of the caller's tenant, or of the one that an operator names.
///
/// # Errors
/// `NotAllowed` for members, and for admins who name a ceiling; `Invalid` with every violation; `QuotaBelowUsage`;
/// `EtagMismatch`; `NotFound` for another tenant.
pub async fn update(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    update: QuotaUpdate,
) -> Result<Quota, Error> {
    let (tenant, viewer) = subject(app, principal, tenant).await?;
    if let Principal::Caller(caller) = principal
        && let Err(why) = may(caller, &update.change)
    {
        return Err(audit::denied(app, caller, AuditAction::QuotaUpdate, None, why).await);
    }
    let mut tx = app.db.tenant_tx(tenant, &viewer).await?;
    let quota = apply(app, &mut tx, principal, &update).await;
    let quota = tx.finish(quota).await;
    app.recent_quotas.forget(tenant).await;
    quota
}

fn may(caller: &Caller, change: &QuotaChange) -> Result<(), Error> {
    access::can_administer(caller)?;
    if change.moves_ceiling() {
        Err(Error::NotAllowed("only the operator may move the ceiling"))
    } else {
        Ok(())
    }
}

async fn apply(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    update: &QuotaUpdate,
) -> Result<Quota, Error> {
    let payload = payload(principal, update)?;
    let attempt = match idempotency::begin(app, tx, update.request_id, Method::UpdateQuota, &payload).await? {
        Begun::Replay(quota) => return Ok(quota),
        Begun::Fresh(attempt) => attempt,
    };
    let quota = change(tx, principal, update).await?;
    if let Some(attempt) = attempt {
        attempt.record(tx, &quota).await?;
    }
    Ok(quota)
}

/// What an update says: another one under the same request id is refused.
pub(in crate::app) fn payload(principal: &Principal, update: &QuotaUpdate) -> Result<[Vec<u8>; 3], Error> {
    let said = serde_json::to_value(&update.change).map_err(Error::internal)?.to_string();
    Ok([&actor(principal).id, &update.if_etag, &said].map(|text| text.clone().into_bytes()))
}

/// The change itself, and its entry.
pub(in crate::app) async fn change(
    tx: &mut TenantTx,
    principal: &Principal,
    update: &QuotaUpdate,
) -> Result<Quota, Error> {
    let quota = quotas::get_for_update(tx).await?;
    check_etag(&update.if_etag, &quota.revision.to_string())?;
    if let Principal::Caller(caller) = principal {
        update.change.check_sizes(&quota, &caller.tenant.policy.quota.file_size_max_bytes)?;
    }
    let next = update.change.apply(&quota)?;
    let fits_files =
        next.file_count_max == 0 || quota.file_count + quota.reserved_file_count <= next.file_count_max;
    if quota.used_bytes + quota.reserved_bytes > next.limit_bytes || !fits_files {
        return Err(Error::QuotaBelowUsage {
            used_bytes: quota.used_bytes,
            reserved_bytes: quota.reserved_bytes,
            file_count: quota.file_count,
        });
    }
    let details = serde_json::to_value(&update.change).map_err(Error::internal)?;
    audit_entries::insert(tx, &[entry(principal, details)]).await?;
    Ok(quotas::set_limits(tx, &next).await?)
}

fn actor(principal: &Principal) -> &Actor {
    match principal {
        Principal::Caller(caller) => &caller.actor,
        Principal::Operator(operator) => &operator.actor,
    }
}

fn entry(principal: &Principal, change: serde_json::Value) -> AuditEntry {
    let (actor, origin) = match principal {
        Principal::Caller(caller) => (caller.actor.clone(), caller.origin.clone()),
        Principal::Operator(operator) => (operator.actor.clone(), operator.origin.clone()),
    };
    AuditEntry {
        actor,
        origin,
        action: AuditAction::QuotaUpdate,
        is_allowed: true,
        file: None,
        version: None,
        details: change,
    }
}
