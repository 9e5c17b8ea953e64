//! Recalculates the usage of a tenant: a job compares the quota and the usage counters with the files, and repairs
//! them. Uploads continue meanwhile; see `db/usage_recalculations.rs`.

use super::{
    resolve_tenant::{begin_tx, resolve_tenant},
    update::{audit_entry, sender_id},
};
use crate::{
    app::{
        App, Error, Principal, access,
        idempotency::{self, RequestClaim},
    },
    db::{
        DbError, TenantTx, Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
        idempotency_keys::Method,
        quotas, usage_counters,
        usage_recalculations::{self, UsageDrift},
        user_quotas,
    },
    domain::{
        ids::{RequestId, TenantId},
        usage_recalculation::{QuotaDrift, RecalculationState, UsageRecalculation},
    },
    jobs::{self, Deduplicate, Job},
};

/// The deduplication key of the job: one queued job per tenant is enough.
const KEY: &str = "recalculate usage";

/// Requests a recalculation, unless one is queued or running. Returns it.
///
/// # Errors
/// Returns `NotAllowed` for callers who are not admins, `NotFound` for another tenant, and `Invalid` if an operator
/// names none.
pub async fn request_recalculation(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
    request_id: Option<RequestId>,
) -> Result<UsageRecalculation, Error> {
    check_permission(principal)?;
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let requested = request_in_tx(app, &mut tx, principal, request_id).await;
    tx.finish(requested).await
}

/// Returns the newest recalculation, with the result of the last completed one. `None` if there was none.
///
/// # Errors
/// Returns the same errors as [`request_recalculation`].
pub async fn get_recalculation(
    app: &App,
    principal: &Principal,
    tenant: Option<TenantId>,
) -> Result<Option<UsageRecalculation>, Error> {
    check_permission(principal)?;
    let (tenant, viewer) = resolve_tenant(app, principal, tenant).await?;
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let newest = usage_recalculations::get(&mut tx).await;
    Ok(tx.finish(newest).await?)
}

fn check_permission(principal: &Principal) -> Result<(), Error> {
    match principal {
        Principal::Caller(caller) => access::check_is_admin(caller),
        Principal::Operator(_) => Ok(()),
    }
}

async fn request_in_tx(
    app: &App,
    tx: &mut TenantTx,
    principal: &Principal,
    request_id: Option<RequestId>,
) -> Result<UsageRecalculation, Error> {
    let payload = [sender_id(principal).into_bytes()];
    let method = Method::RecalculateUsage;
    let attempt = match idempotency::claim_request(app, tx, request_id, method, &payload).await? {
        RequestClaim::Replay(recalculation) => return Ok(recalculation),
        RequestClaim::New(attempt) => attempt,
    };
    let recalculation = usage_recalculations::request(tx).await?;
    let job = Job::RecalculateUsage {};
    jobs::enqueue_job(tx, app.ids.as_ref(), &job, Deduplicate::ByKey(KEY)).await?;
    let entry = audit_entry(principal, AuditAction::UsageRecalculate, serde_json::json!({}));
    audit_entries::insert(tx, &[entry]).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &recalculation).await?;
    }
    Ok(recalculation)
}

/// Runs the recalculation that is queued, if there is one.
///
/// # Errors
/// Returns `DatabaseUnavailable`. The job then runs again.
pub async fn recalculate_usage(app: &App, tenant: TenantId) -> Result<(), Error> {
    match Measurement::measure(app, tenant).await? {
        Some(measurement) => measurement.repair(app).await,
        None => Ok(()),
    }
}

/// A measured drift that is not repaired yet.
#[derive(Debug)]
pub struct Measurement {
    tenant: TenantId,
    epoch: i32,
    drift: UsageDrift,
}

impl Measurement {
    /// Begins the queued recalculation and measures the drift. Returns `None` if none is queued.
    ///
    /// # Errors
    /// Returns `DatabaseUnavailable`.
    pub async fn measure(app: &App, tenant: TenantId) -> Result<Option<Self>, Error> {
        let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
        let epoch = usage_recalculations::begin(&mut tx).await;
        let Some(epoch) = tx.finish(epoch).await? else { return Ok(None) };
        // A new transaction, so that the snapshot contains the repair of the job with the former epoch.
        let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
        let drift = usage_recalculations::measure(&mut tx).await;
        let drift = tx.finish(drift).await?;
        Ok(Some(Self { tenant, epoch, drift }))
    }

    /// Subtracts the drift from the current values, unless a later job measured it again.
    ///
    /// # Errors
    /// Returns `DatabaseUnavailable`.
    pub async fn repair(self, app: &App) -> Result<(), Error> {
        let mut tx = app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
        if self.repair_in_tx(&mut tx).await? {
            tx.commit().await?;
        } else {
            // The usage counters were already changed.
            tx.rollback().await?;
            self.report_exceeded_limit(app).await?;
        }
        app.quota_cache.invalidate(self.tenant).await;
        Ok(())
    }

    /// Returns whether the repaired values fit into the limits. If not, the transaction must be rolled back.
    async fn repair_in_tx(&self, tx: &mut TenantTx) -> Result<bool, DbError> {
        if !usage_recalculations::complete(tx, self.epoch, RecalculationState::Done, &self.drift).await? {
            return Ok(true);
        }
        let (quota, counter_count) = (&self.drift.quota, self.drift.counter_count());
        if *quota == QuotaDrift::default() && counter_count == 0 {
            return Ok(true);
        }
        let details = serde_json::json!({ "drift": quota, "drift_counters": counter_count });
        audit_entries::insert(tx, &[AuditEntry::system(AuditAction::UsageRepair, details)]).await?;
        // The quota last, as in every change.
        if self.drift.repair.counter_count() > 0 {
            usage_counters::apply_delta(tx, &self.drift.repair).await?;
        }
        let fits = quotas::subtract_drift(tx, quota).await?
            && user_quotas::subtract_drifts(tx, &self.drift.users).await?;
        if fits {
            tracing::warn!(tenant = %self.tenant, drift = ?quota, counter_count, "repaired drift of usage");
        }
        Ok(fits)
    }

    async fn report_exceeded_limit(&self, app: &App) -> Result<(), Error> {
        tracing::warn!(tenant = %self.tenant, drift = ?self.drift.quota, "usage exceeds the limits of the quota");
        let mut tx = app.db.tenant_tx(self.tenant, &Viewer::system()).await?;
        let state = RecalculationState::LimitExceeded;
        let completed = usage_recalculations::complete(&mut tx, self.epoch, state, &self.drift).await;
        tx.finish(completed).await?;
        Ok(())
    }
}
