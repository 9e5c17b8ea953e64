//! Inspection of the queue, and the operations that operators perform on jobs.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, IntoSql as _, QueryDsl as _, Queryable,
    QueryableByName, Selectable, SelectableHelper as _,
    sql_types::{BigInt, Bool, Double, Integer, Interval},
};

use super::{
    JobOutcome, JobState,
    lease::{LockedJob, archive},
};
use crate::{
    db::{
        DbError, SystemTx,
        schema::jobs,
        sql::{AcrossTenants as _, OfTenant as _, literal, now, query, seconds_u64, sql, statement},
    },
    domain::{
        clock::Timestamp,
        ids::{JobId, TenantId},
    },
};

/// The limit up to which jobs of one state are counted, because a metrics scrape must not scan a queue of
/// millions.
const COUNT_MAX: i64 = 100_000;

/// A live job.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = jobs, check_for_backend(diesel::pg::Pg))]
pub struct JobRow {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    pub id: JobId,
    pub kind: String,
    /// The serialized job.
    pub payload: serde_json::Value,
    pub state: JobState,
    /// The number of attempts that were started.
    pub attempts: i32,
    /// The number of consecutive attempts that failed because of a dependency, which do not count.
    pub dependency_failures: i32,
    pub enqueue_time: Timestamp,
    /// The earliest time of the next attempt.
    pub run_time: Timestamp,
    /// When the lease of its worker expires, while it is running.
    pub lease_expire_time: Option<Timestamp>,
    /// The error of the last failed attempt, or empty.
    pub last_error: String,
}

/// Returns live jobs in the given states, ordered by run time.
pub async fn list(tx: &mut SystemTx, states: &[JobState], limit: i64) -> Result<Vec<JobRow>, DbError> {
    let page = jobs::table
        .across_tenants()
        .filter(jobs::state.eq_any(states.to_vec()))
        .order((jobs::run_time, jobs::tenant_id, jobs::id))
        .limit(limit)
        .select(JobRow::as_select());
    query("list jobs", page).load(tx.connection()?).await
}

/// Returns the live job with this id, and locks it until the transaction ends.
///
/// No index supports this query: the table contains only live jobs, and only operators use it.
pub async fn get(tx: &mut SystemTx, id: JobId) -> Result<Option<JobRow>, DbError> {
    let job = jobs::table.across_tenants().filter(jobs::id.eq(id)).select(JobRow::as_select()).for_update();
    query("get job", job).first(tx.connection()?).await
}

/// Makes a locked job ready and resets its attempts.
///
/// # Errors
/// Fails with the constraint `jobs_by_key` if another job with the same key is ready or running.
pub async fn retry(tx: &mut SystemTx, job: &JobRow) -> Result<(), DbError> {
    let retry = diesel::update(jobs::table.of(job.tenant).filter(jobs::id.eq(job.id))).set((
        jobs::state.eq(JobState::Ready),
        jobs::attempts.eq(0),
        jobs::dependency_failures.eq(0),
        jobs::run_time.eq(now()),
    ));
    query("retry job", retry).execute(tx.connection()?).await.map(|_| ())
}

/// Returns parked jobs of one kind, or of all kinds, ordered by the time at which they were parked.
pub async fn list_parked(tx: &mut SystemTx, kind: Option<&str>, limit: i64) -> Result<Vec<JobRow>, DbError> {
    let parked = jobs::table.across_tenants().filter(jobs::state.eq(literal!(JobState::Parked)));
    let of_kind = kind.unwrap_or_default().to_owned();
    let page = parked
        .filter(jobs::kind.eq(of_kind).or(kind.is_none().into_sql::<Bool>()))
        .order((jobs::run_time, jobs::tenant_id, jobs::id))
        .limit(limit)
        .select(JobRow::as_select());
    query("list parked jobs", page).load(tx.connection()?).await
}

/// A parked job that was made ready for one attempt.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = jobs)]
pub struct RetriedJob {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    pub id: JobId,
    pub kind: String,
}

/// Makes jobs that have been parked for `interval_seconds` ready for one attempt, which parks them again if it
/// fails. Skips a job if another one with its key is ready or running, or was parked later, because that one does its
/// work.
pub async fn retry_parked(
    tx: &mut SystemTx,
    interval_seconds: u64,
    attempts_max: i32,
    limit: i64,
) -> Result<Vec<RetriedJob>, DbError> {
    // An update of rows that a locking subquery picks; DISTINCT ON picks one job of each key.
    let text = sql!(
        "WITH due AS MATERIALIZED (
             SELECT j.tenant_id, j.id, j.run_time, coalesce(j.dedup_key, j.id::text) AS work FROM jobs AS j
             WHERE j.state = {parked} AND j.run_time <= app.now() - $1
               AND NOT EXISTS (
                   SELECT FROM jobs AS other
                   WHERE other.tenant_id = j.tenant_id AND other.dedup_key = j.dedup_key
                     AND other.state IN ({ready}, {running}))
             ORDER BY j.run_time, j.tenant_id, j.id LIMIT $3 FOR UPDATE OF j SKIP LOCKED
         ), picked AS (
             SELECT DISTINCT ON (due.tenant_id, due.work) due.tenant_id, due.id FROM due
             ORDER BY due.tenant_id, due.work, due.run_time DESC, due.id DESC
         )
         UPDATE jobs AS j SET state = {ready}, attempts = greatest(0, least(j.attempts, $2) - 1), run_time = app.now()
         FROM picked WHERE j.tenant_id = picked.tenant_id AND j.id = picked.id
         RETURNING j.tenant_id, j.id, j.kind",
        ready = JobState::Ready,
        running = JobState::Running,
        parked = JobState::Parked,
    );
    statement("retry parked jobs", text)
        .bind::<Interval, _>(seconds_u64(interval_seconds))
        .bind::<Integer, _>(attempts_max)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await
}

/// Discards a locked job, which must not be running.
pub async fn discard(tx: &mut SystemTx, job: &JobRow) -> Result<(), DbError> {
    let locked = LockedJob { tenant: job.tenant, id: job.id, state: job.state };
    archive("discard job", tx, locked, JobOutcome::Discarded).await
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
    /// The ready jobs whose last attempt failed because of a dependency, counted up to 100,000.
    #[diesel(sql_type = BigInt)]
    pub waiting: i64,
    /// The number of seconds for which the oldest due job has been due; 0 if none is due.
    #[diesel(sql_type = Double)]
    pub oldest_due_seconds: f64,
}

/// Reads the depth of the queue.
pub async fn get_depth(tx: &mut SystemTx) -> Result<QueueDepth, DbError> {
    // Counts that stop at a limit, in one round trip.
    let text = sql!(
        "SELECT (SELECT count(*) FROM (SELECT FROM jobs WHERE state = {ready} LIMIT $1) AS j) AS ready,
            (SELECT count(*) FROM (SELECT FROM jobs WHERE state = {running} LIMIT $1) AS j) AS running,
            (SELECT count(*) FROM (SELECT FROM jobs WHERE state = {parked} LIMIT $1) AS j) AS parked,
            (SELECT count(*) FROM (SELECT FROM jobs WHERE state = {ready} AND dependency_failures > 0 LIMIT $1) AS j)
                AS waiting,
            greatest(0, coalesce(extract(epoch FROM app.now() - (
                SELECT min(run_time) FROM jobs WHERE state = {ready})), 0))::double precision AS oldest_due_seconds",
        ready = JobState::Ready,
        running = JobState::Running,
        parked = JobState::Parked,
    );
    statement("read queue depth", text).bind::<BigInt, _>(COUNT_MAX).one(tx.connection()?).await
}
