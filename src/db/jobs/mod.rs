//! The job queue, with one row per live job. Jobs are enqueued in the transaction that causes them. Workers
//! claim jobs, extend their leases and finish them, across tenants.
//!
//! A worker holds a job under a *lease*, identified by the epoch that its claim assigned. Every statement of
//! a holder checks the epoch, so a worker whose lease expired can no longer change a job that another worker
//! has claimed.

mod claim;
mod inspect;
mod lease;

use diesel::sql_types::{Jsonb, Nullable, Text, Uuid as SqlUuid};
use serde::Serialize;

pub use self::{
    claim::{CandidateTenant, ClaimLimits, ClaimedJob, LostJob, claim, list_candidates, recover_lost},
    inspect::{
        JobRow, QueueDepth, RetriedJob, discard, get, get_depth, list, list_parked, retry, retry_parked,
    },
    lease::{JobLease, LeaseState, NextAttempt, extend_lease, fail, finish, release},
};
use super::{
    DbError, SystemTx, TenantTx,
    sql::{Operation, SqlText, sql, statement},
};
use crate::domain::{
    ids::{JobId, TenantId},
    sql_enum::sql_enum,
};

sql_enum! {
    /// The state of a live job.
    JobState {
        /// It waits for its run time and for a worker.
        Ready = 1 => "ready",
        /// A worker holds it.
        Running = 2 => "running",
        /// It used all its attempts. It is attempted again from time to time, or when an operator retries it.
        Parked = 3 => "parked",
    }
}

sql_enum! {
    /// The outcome of a finished job.
    JobOutcome {
        Done = 1 => "done",
        Discarded = 2 => "discarded",
    }
}

/// Inserts a job for the transaction's tenant. See [`insert_for`] for the meaning of `key`.
pub async fn insert(
    tx: &mut TenantTx,
    id: JobId,
    job: &impl Serialize,
    key: Option<&str>,
) -> Result<(), DbError> {
    let tenant = tx.tenant();
    insertion(tenant, id, job, key)?.execute(tx.connection()?).await.map(|_| ())
}

/// Inserts a job for a tenant, deduplicated by `key`.
///
/// If a job with the same key is ready, none is inserted; the ready job is locked until this transaction
/// ends, so that no worker starts it before this transaction's changes are visible. If it is running, a
/// rerun is requested.
pub async fn insert_for(
    tx: &mut SystemTx,
    tenant: TenantId,
    id: JobId,
    job: &impl Serialize,
    key: Option<&str>,
) -> Result<(), DbError> {
    insertion(tenant, id, job, key)?.execute(tx.connection()?).await.map(|_| ())
}

fn insertion(
    tenant: TenantId,
    id: JobId,
    job: &impl Serialize,
    key: Option<&str>,
) -> Result<Operation<SqlText>, DbError> {
    const OPERATION: &str = "enqueue job";
    let payload = serde_json::to_value(job).map_err(|error| DbError::corrupt(OPERATION, error))?;
    // The conflict target is a partial index.
    let text = sql!(
        "INSERT INTO jobs (tenant_id, id, payload, dedup_key, state, run_time, enqueue_time)
         VALUES ($1, $2, $3, $4, {ready}, app.now(), app.now())
         ON CONFLICT (tenant_id, dedup_key) WHERE dedup_key IS NOT NULL AND state IN ({ready}, {running})
         DO UPDATE SET is_rerun_requested = true WHERE jobs.state = {running}",
        ready = JobState::Ready,
        running = JobState::Running,
    );
    Ok(statement(OPERATION, text)
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(id)
        .bind::<Jsonb, _>(payload)
        .bind::<Nullable<Text>, _>(key.map(str::to_owned)))
}
