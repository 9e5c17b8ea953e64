//! Updates the limits of a user.
//!
//! The usage of a user is counted from its first limit on. The row is created first, so that every later change counts
//! in it. Then the files from before are summed in one snapshot, without a lock, and the result is added together with
//! the limits. So the limits are exact from the first moment, and no upload waits for the sum.

use super::unlimited;
use crate::{
    app::{
        App, Error, Principal, access, audit,
        idempotency::{self, RequestClaim},
        preconditions::check_etag,
        quotas::{
            resolve_tenant::{begin_tx, resolve_tenant},
            update::{audit_entry, sender_id},
        },
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        idempotency_keys::Method,
        quotas,
        user_quotas::{self, UserDrift},
    },
    domain::{
        ids::{RequestId, TenantId},
        user_quota::{UserQuota, UserQuotaChange},
    },
};

/// A request to update the quota of a user.
#[derive(Debug, Clone)]
pub struct UserQuotaUpdate {
    pub user_id: String,
    pub change: UserQuotaChange,
    /// The expected etag of the quota. Empty means no check.
    pub if_etag: String,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// Updates the limits of a user of the caller's tenant, or of the tenant that an operator names. There is no directory of
/// users, so any id is accepted.
///
/// # Errors
/// Returns `NotAllowed` for callers who are not admins, `Invalid` with every violation, `QuotaBelowUsage`,
/// `EtagMismatch`, or `NotFound` for another tenant.
pub async fn update_user_quota(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    update: UserQuotaUpdate,
) -> Result<UserQuota, Error> {
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    if let Principal::Caller(caller) = principal
        && let Err(error) = access::check_is_admin(caller)
    {
        return Err(audit::record_denial(app, caller, AuditAction::UserQuotaUpdate, None, error).await);
    }
    let drift = match begin_count(app, principal, tenant, &viewer, &update).await? {
        Count::Replayed(quota) => return Ok(quota),
        Count::Counted => None,
        Count::Begun => measure_drift(app, tenant, &update.user_id).await?,
    };
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let quota = update_in_tx(app, &mut tx, principal, &update, drift.as_ref()).await;
    tx.finish(quota).await
}

/// The state of the usage of a user.
enum Count {
    /// The request was executed before, with this response.
    Replayed(UserQuota),
    /// All files are counted.
    Counted,
    /// Changes are counted, and the files from before are not.
    Begun,
}

async fn begin_count(
    app: &App,
    principal: &Principal,
    tenant: TenantId,
    viewer: &Viewer,
    update: &UserQuotaUpdate,
) -> Result<Count, Error> {
    let mut tx = begin_tx(app, principal, tenant, viewer).await?;
    let begun = begin_count_in_tx(app, &mut tx, principal, update).await;
    tx.finish(begun).await
}

async fn begin_count_in_tx(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    update: &UserQuotaUpdate,
) -> Result<Count, Error> {
    if let RequestClaim::Replay(quota) = claim(app, tx, principal, update).await? {
        return Ok(Count::Replayed(quota));
    }
    quotas::get_for_update(tx).await?;
    let current = user_quotas::get(tx, &update.user_id).await?;
    check_etag(&update.if_etag, &etag(current.as_ref()))?;
    Ok(if user_quotas::begin_count(tx, &update.user_id).await? { Count::Counted } else { Count::Begun })
}

async fn measure_drift(app: &App, tenant: TenantId, user_id: &str) -> Result<Option<UserDrift>, Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let drifts = user_quotas::measure_drift(&mut tx, Some(user_id)).await;
    Ok(tx.finish(drifts).await?.pop())
}

async fn update_in_tx(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    update: &UserQuotaUpdate,
    drift: Option<&UserDrift>,
) -> Result<UserQuota, Error> {
    let attempt = match claim(app, tx, principal, update).await? {
        RequestClaim::Replay(quota) => return Ok(quota),
        RequestClaim::New(attempt) => attempt,
    };
    let quota = change_limits(tx, principal, update, drift).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &quota).await?;
    }
    Ok(quota)
}

async fn claim(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    update: &UserQuotaUpdate,
) -> Result<RequestClaim<UserQuota>, Error> {
    let fields = serde_json::to_value(&update.change).map_err(Error::internal)?.to_string();
    let payload = [&sender_id(principal), &update.user_id, &update.if_etag, &fields]
        .map(|text| text.clone().into_bytes());
    idempotency::claim_request(app, tx, update.request_id, Method::UpdateUserQuota, &payload).await
}

/// Changes the limits and writes the audit entry.
async fn change_limits(
    tx: &mut TenantTx,
    principal: &Principal,
    update: &UserQuotaUpdate,
    drift: Option<&UserDrift>,
) -> Result<UserQuota, Error> {
    quotas::get_for_update(tx).await?;
    // Before the count is completed, the limits were never set, so the etag is that of no limits.
    let current = user_quotas::get(tx, &update.user_id).await?;
    check_etag(&update.if_etag, &etag(current.as_ref()))?;
    if let Some(drift) = drift {
        user_quotas::complete_count(tx, drift).await?;
    }
    let counted = user_quotas::get(tx, &update.user_id).await?;
    let quota = counted.ok_or_else(|| Error::internal("quota of a user is not counted"))?;
    let next = update.change.apply(quota);
    let exceeds_bytes =
        next.limit_bytes.is_some_and(|limit_bytes| next.used_bytes + next.reserved_bytes > limit_bytes);
    let exceeds_files =
        next.file_count_max > 0 && next.file_count + next.reserved_file_count > next.file_count_max;
    if exceeds_bytes || exceeds_files {
        return Err(Error::QuotaBelowUsage {
            used_bytes: next.used_bytes,
            reserved_bytes: next.reserved_bytes,
            file_count: next.file_count,
        });
    }
    let details = serde_json::json!({ "user_id": update.user_id, "change": update.change });
    audit_entries::insert(tx, &[audit_entry(principal, AuditAction::UserQuotaUpdate, details)]).await?;
    Ok(user_quotas::set_limits(tx, &next).await?)
}

fn etag(quota: Option<&UserQuota>) -> String {
    quota.map_or_else(|| unlimited(String::new()).etag(), UserQuota::etag)
}
