//! The queue: one row a live job. Enqueued by whoever changes something, in the same transaction; claimed, kept and ended by
//! workers, who work across tenants.
//!
//! A worker holds a job by its *lease*: the epoch that its claim gave the row. Every statement of a holder compares it, so
//! that a worker whose lease ran out, and whose job another one has, changes nothing any more.

mod claim;
mod inspect;
mod lease;

use diesel::sql_types::{Jsonb, Nullable, Text, Uuid as SqlUuid};
use serde::Serialize;

pub use self::{
    claim::{Candidate, ClaimTerms, ClaimedJob, LostJob, candidates, claim, recover},
    inspect::{Depth, JobRow, depth, discard, get, list, retry},
    lease::{JobLease, Next, beat, fail, finish, release},
};
use super::{
    DbError, SystemTx, TenantTx,
    statement::{Statement, statement},
};
use crate::domain::{
    ids::{JobId, TenantId},
    sql_enum::sql_enum,
};

sql_enum! {
    /// How a live job stands.
    JobState {
        /// It waits for its time and for a worker.
        Ready = 1 => "ready",
        /// A worker has it.
        Running = 2 => "running",
        /// It failed too often and waits for an operator.
        Parked = 3 => "parked",
    }
}

sql_enum! {
    /// How a job ended.
    JobOutcome {
        /// It was done.
        Done = 1 => "done",
        /// An operator threw it away.
        Discarded = 2 => "discarded",
    }
}

/// Adds a job of the transaction's tenant; see `insert_for` for what the key does.
pub async fn insert(
    tx: &mut TenantTx,
    id: JobId,
    job: &impl Serialize,
    key: Option<&str>,
) -> Result<(), DbError> {
    let tenant = tx.tenant();
    insertion(tenant, id, job, key)?.execute(tx.connection()?).await.map(|_| ())
}

/// Adds a job. Where one with the same key is ready, that one will do: it is locked until this transaction ends, so that no
/// worker begins it before it can see what this transaction changed. Where one is running, it will run once more.
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
) -> Result<Statement, DbError> {
    const OPERATION: &str = "enqueue job";
    let payload = serde_json::to_value(job).map_err(|error| DbError::corrupt(OPERATION, error))?;
    Ok(statement(
        OPERATION,
        "INSERT INTO jobs (tenant_id, id, payload, dedup_key, state, run_time, enqueue_time)
         VALUES ({}, {}, {}, {}, 1, app.now(), app.now())
         ON CONFLICT (tenant_id, dedup_key) WHERE dedup_key IS NOT NULL AND state IN (1, 2)
         DO UPDATE SET is_asked_again = true WHERE jobs.state = 2",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<SqlUuid, _>(id.as_uuid())
    .bind::<Jsonb, _>(payload)
    .bind::<Nullable<Text>, _>(key.map(str::to_owned)))
}
