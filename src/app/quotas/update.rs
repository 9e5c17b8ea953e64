//! Updates the limits of a tenant. Its admins may set limits up to the operator's ceiling; the operator may
//! also change the ceiling.

use super::resolve_tenant::{begin_tx, resolve_tenant};
use crate::{
    app::{
        App, Denial, Error, Principal, access, audit,
        idempotency::{self, RequestClaim},
        preconditions::check_etag,
        tenants::operator_entry,
    },
    db::{
        TenantTx,
        audit_entries::{self, AuditAction, AuditEntry},
        idempotency_keys::Method,
        quotas,
    },
    domain::{
        caller::Caller,
        ids::{RequestId, TenantId},
        quota::{Quota, QuotaChange},
    },
};

/// A request to update a quota.
#[derive(Debug, Clone)]
pub struct QuotaUpdate {
    pub change: QuotaChange,
    /// The expected etag of the quota. Empty means no check.
    pub if_etag: String,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// Updates the limits of the caller's tenant, or of the tenant that an operator names.
///
/// # Errors
/// Returns `NotAllowed` for members, and for admins who set a ceiling; `Invalid` with every violation;
/// `QuotaBelowUsage`; `EmailNotConfigured`; `EtagMismatch`; or `NotFound` for another tenant.
pub async fn update_quota(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    update: QuotaUpdate,
) -> Result<Quota, Error> {
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    if let Principal::Caller(caller) = principal
        && let Err(error) = check_permission(caller, &update.change)
    {
        return Err(audit::record_denial(app, caller, AuditAction::QuotaUpdate, None, error).await);
    }
    let sets_addresses = update.change.alert_emails.as_ref().is_some_and(|addresses| !addresses.is_empty());
    if sets_addresses && !app.limits.smtp.is_configured() {
        return Err(Error::EmailNotConfigured);
    }
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let quota = update_in_tx(app, &mut tx, principal, &update).await;
    let quota = tx.finish(quota).await;
    app.quota_cache.invalidate(tenant).await;
    quota
}

fn check_permission(caller: &Caller, change: &QuotaChange) -> Result<(), Error> {
    access::check_is_admin(caller)?;
    if change.changes_ceiling() { Err(Error::NotAllowed(Denial::ChangesCeiling)) } else { Ok(()) }
}

async fn update_in_tx(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    update: &QuotaUpdate,
) -> Result<Quota, Error> {
    let payload = encode_payload(principal, update)?;
    let attempt =
        match idempotency::claim_request(app, tx, update.request_id, Method::UpdateQuota, &payload).await? {
            RequestClaim::Replay(quota) => return Ok(quota),
            RequestClaim::New(attempt) => attempt,
        };
    let quota = change_limits(tx, principal, update).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &quota).await?;
    }
    Ok(quota)
}

/// Encodes the update as the payload of its request id.
pub(in crate::app) fn encode_payload(
    principal: &Principal,
    update: &QuotaUpdate,
) -> Result<[Vec<u8>; 3], Error> {
    let fields = serde_json::to_value(&update.change).map_err(Error::internal)?.to_string();
    Ok([&sender_id(principal), &update.if_etag, &fields].map(|text| text.clone().into_bytes()))
}

/// Changes the limits and writes the audit entry.
pub(in crate::app) async fn change_limits(
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
    audit_entries::insert(tx, &[audit_entry(principal, AuditAction::QuotaUpdate, details)]).await?;
    Ok(quotas::set_limits(tx, &next).await?)
}

pub(super) fn sender_id(principal: &Principal) -> String {
    match principal {
        Principal::Caller(caller) => caller.actor.id.clone(),
        Principal::Operator(operator) => operator.id(),
    }
}

pub(super) fn audit_entry(
    principal: &Principal,
    action: AuditAction,
    details: serde_json::Value,
) -> AuditEntry {
    match principal {
        Principal::Caller(caller) => AuditEntry { details, ..audit::new_entry(caller, action) },
        Principal::Operator(operator) => operator_entry(operator, action, details),
    }
}
