//! Inspection of the queue, and the operations that operators perform on jobs.

use diesel::{
    QueryableByName,
    sql_types::{
        Array, BigInt, Double, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{JobOutcome, JobState, lease::archive};
use crate::{
    db::{DbError, SystemTx, sql::statement},
    domain::{
        clock::Timestamp,
        ids::{JobId, TenantId},
    },
};

/// The limit up to which jobs of one state are counted, because a metrics scrape must not scan a queue of
/// millions.
const COUNT_MAX: i64 = 100_000;

/// A live job.
#[derive(Debug, Clone)]
pub struct JobRow {
    pub tenant: TenantId,
    pub id: JobId,
    pub kind: String,
    /// The serialized job.
    pub payload: serde_json::Value,
    pub state: JobState,
    /// The number of attempts that were started.
    pub attempts: i32,
    pub enqueue_time: Timestamp,
    /// The earliest time of the next attempt.
    pub run_time: Timestamp,
    /// When the lease of its worker expires, while it is running.
    pub lease_expire_time: Option<Timestamp>,
    /// The error of the last failed attempt, or empty.
    pub last_error: String,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Jsonb)]
    payload: serde_json::Value,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Timestamptz)]
    enqueue_time: Timestamp,
    #[diesel(sql_type = Timestamptz)]
    run_time: Timestamp,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    lease_expire_time: Option<Timestamp>,
    #[diesel(sql_type = Text)]
    last_error: String,
}

impl Row {
    fn into_job(self) -> Result<JobRow, DbError> {
        Ok(JobRow {
            tenant: TenantId::from_uuid(self.tenant_id),
            id: JobId::from_uuid(self.id),
            kind: self.kind,
            payload: self.payload,
            state: JobState::from_number(self.state).ok_or_else(|| DbError::corrupt("read job", "state"))?,
            attempts: self.attempts,
            enqueue_time: self.enqueue_time,
            run_time: self.run_time,
            lease_expire_time: self.lease_expire_time,
            last_error: self.last_error,
        })
    }
}

const COLUMNS: &str = "tenant_id, id, kind, payload, state, attempts, enqueue_time, run_time, lease_expire_time, \
    last_error";

/// Returns live jobs in the given states, ordered by run time.
pub async fn list(tx: &mut SystemTx, states: &[JobState], limit: i64) -> Result<Vec<JobRow>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM jobs WHERE state = ANY ($1) ORDER BY run_time, tenant_id, id LIMIT $2"
    );
    let numbers: Vec<i16> = states.iter().map(|state| state.number()).collect();
    let rows: Vec<Row> = statement("list jobs", sql)
        .bind::<Array<SmallInt>, _>(numbers)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(Row::into_job).collect()
}

/// Returns the live job with this id, and locks it until the transaction ends.
///
/// No index supports this query: the table contains only live jobs, and only operators use it.
pub async fn get(tx: &mut SystemTx, id: JobId) -> Result<Option<JobRow>, DbError> {
    let row: Option<Row> =
        statement("get job", format!("SELECT {COLUMNS} FROM jobs WHERE id = $1 FOR UPDATE"))
            .bind::<SqlUuid, _>(id.as_uuid())
            .first(tx.connection()?)
            .await?;
    row.map(Row::into_job).transpose()
}

/// Makes a locked job ready and resets its attempts.
///
/// # Errors
/// Fails with the constraint `jobs_by_key` if another job with the same key is ready or running.
pub async fn retry(tx: &mut SystemTx, job: &JobRow) -> Result<(), DbError> {
    statement(
        "retry job",
        "UPDATE jobs SET state = 1, attempts = 0, run_time = app.now() WHERE tenant_id = $1 AND id = $2",
    )
    .bind::<SqlUuid, _>(job.tenant.as_uuid())
    .bind::<SqlUuid, _>(job.id.as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Discards a locked job that is not running.
pub async fn discard(tx: &mut SystemTx, job: &JobRow) -> Result<(), DbError> {
    let sql = archive("WHERE tenant_id = $1 AND id = $2 AND state IN (1, 3)", "$3");
    statement("discard job", sql)
        .bind::<SqlUuid, _>(job.tenant.as_uuid())
        .bind::<SqlUuid, _>(job.id.as_uuid())
        .bind::<SmallInt, _>(JobOutcome::Discarded.number())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// The number of jobs in the queue, by state, and the age of the oldest.
#[derive(Debug, Clone, Copy, PartialEq, QueryableByName)]
pub struct QueueDepth {
    /// Ready jobs, counted up to 100,000.
    #[diesel(sql_type = BigInt)]
    pub ready: i64,
    /// Running jobs, counted up to 100,000.
    #[diesel(sql_type = BigInt)]
    pub running: i64,
    /// Parked jobs, counted up to 100,000.
    #[diesel(sql_type = BigInt)]
    pub parked: i64,
    /// The number of seconds for which the oldest due job has been due; 0 if none is due.
    #[diesel(sql_type = Double)]
    pub oldest_due_seconds: f64,
}

/// Reads the depth of the queue.
pub async fn get_depth(tx: &mut SystemTx) -> Result<QueueDepth, DbError> {
    let count = |state: JobState| {
        format!(
            "(SELECT count(*) FROM (SELECT FROM jobs WHERE state = {} LIMIT {COUNT_MAX}) AS j)",
            state.number()
        )
    };
    let sql = format!(
        "SELECT {} AS ready, {} AS running, {} AS parked, greatest(0, coalesce(extract(epoch FROM app.now() -
            (SELECT min(run_time) FROM jobs WHERE state = 1)), 0))::double precision AS oldest_due_seconds",
        count(JobState::Ready),
        count(JobState::Running),
        count(JobState::Parked),
    );
    statement("read queue depth", sql).one(tx.connection()?).await
}
