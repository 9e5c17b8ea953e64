//! Charges the quota of a tenant and that of a user together. Every use case that stores or releases bytes changes usage
//! here; only the commit of uploads does it in the database.

use crate::{
    app::Error,
    db::{
        DbError, TenantTx,
        commit::ExceededQuota,
        quotas::{self, ChargeOutcome, QuotaDelta, UserDelta},
        user_quotas,
    },
    domain::quota::Quota,
};

/// Charges the files of one owner.
///
/// # Errors
/// Returns `QuotaBytes`, `QuotaFiles` or `UserQuota`; the transaction must then be rolled back.
pub(in crate::app) async fn charge(
    tx: &mut TenantTx,
    owner_id: &str,
    delta: QuotaDelta,
) -> Result<Quota, Error> {
    charge_users(tx, delta, &[UserDelta::new(owner_id, delta)]).await
}

/// Applies a change to the quota of the tenant, and changes to the quotas of users.
///
/// # Errors
/// Returns `QuotaBytes`, `QuotaFiles` or `UserQuota`; the transaction must then be rolled back.
pub(in crate::app) async fn charge_users(
    tx: &mut TenantTx,
    delta: QuotaDelta,
    users: &[UserDelta],
) -> Result<Quota, Error> {
    let needed_bytes = delta.used_bytes + delta.reserved_bytes;
    match quotas::apply_delta(tx, delta, users).await? {
        ChargeOutcome::Charged(quota) => Ok(quota),
        ChargeOutcome::TenantExceeded => Err(Error::quota_exceeded(&quotas::get(tx).await?, needed_bytes)),
        ChargeOutcome::UserExceeded(quota) => {
            let added = users.iter().filter(|change| change.user_id == quota.user_id);
            let bytes = added.map(|change| change.delta.used_bytes + change.delta.reserved_bytes).sum();
            Err(Error::user_quota_exceeded(&quota, bytes))
        }
    }
}

/// Returns the error of a commit of uploads that exceeds a quota.
pub(in crate::app) async fn commit_error(
    tx: &mut TenantTx,
    exceeded: ExceededQuota,
    needed_bytes: i64,
) -> Result<Error, DbError> {
    Ok(match exceeded {
        ExceededQuota::Tenant => Error::quota_exceeded(&quotas::get(tx).await?, needed_bytes),
        ExceededQuota::User(user_id) => match user_quotas::get(tx, &user_id).await? {
            Some(quota) => Error::user_quota_exceeded(&quota, needed_bytes),
            None => Error::internal("exceeded quota of a user does not exist"),
        },
    })
}

/// Releases usage or reservations of one owner, which always fits.
pub(in crate::app) async fn release(
    tx: &mut TenantTx,
    owner_id: Option<&str>,
    delta: QuotaDelta,
) -> Result<(), DbError> {
    let users: Vec<UserDelta> = owner_id.iter().map(|owner_id| UserDelta::new(owner_id, delta)).collect();
    quotas::apply_delta(tx, delta, &users).await.map(|_| ())
}
