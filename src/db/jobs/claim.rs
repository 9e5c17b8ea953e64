//! Claiming jobs, with fairness between tenants: a round visits a bounded number of tenants and claims one
//! job of each. A tenant with ten thousand jobs therefore gets no larger share than one with a single job.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Integer, Interval, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{JobLease, JobState};
use crate::{
    db::{
        DbError, SystemTx,
        schema::jobs,
        sql::{Damage, Readable, seconds_u64, sql, statement},
    },
    domain::ids::{JobId, TenantId},
};

/// Limits for claiming jobs.
#[derive(Debug, Clone, Copy)]
pub struct ClaimLimits {
    /// The duration of a lease without a heartbeat, in seconds.
    pub lease_seconds: u64,
    /// The maximum number of jobs of one tenant that run concurrently, over all workers. Two concurrent
    /// claims can exceed it by one.
    pub tenant_jobs_max: i64,
}

/// A job that this worker has claimed.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    pub lease: JobLease,
    pub kind: String,
    /// The serialized job; see `jobs::parse_job`.
    pub payload: serde_json::Value,
    /// The number of this attempt, from 1.
    pub attempt: i32,
    /// The number of consecutive attempts before this one that failed because of a dependency.
    pub dependency_failures: i32,
}

/// A tenant with ready jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = jobs)]
pub struct CandidateTenant {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    /// Whether a job is due and the tenant is below its limit of running jobs.
    #[diesel(sql_type = Bool)]
    pub is_due: bool,
}

/// Returns up to `tenants_max` tenants with ready jobs after a tenant, ordered by id.
///
/// Skips from tenant to tenant through the index, so the cost does not depend on the number of jobs. The
/// ORDER BY clauses match the index; otherwise the planner would scan the table.
pub async fn list_candidates(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    tenants_max: i64,
    limits: ClaimLimits,
) -> Result<Vec<CandidateTenant>, DbError> {
    // A recursive skip scan.
    let text = sql!(
        "WITH RECURSIVE visited (tenant_id, n) AS (
             SELECT (SELECT j.tenant_id FROM jobs AS j WHERE j.state = {ready} AND j.tenant_id > $1
                     ORDER BY j.tenant_id, j.run_time, j.id LIMIT 1), 1
             UNION ALL
             SELECT (SELECT j.tenant_id FROM jobs AS j WHERE j.state = {ready} AND j.tenant_id > visited.tenant_id
                     ORDER BY j.tenant_id, j.run_time, j.id LIMIT 1), n + 1
             FROM visited WHERE visited.tenant_id IS NOT NULL AND n < $2
         )
         SELECT v.tenant_id, (
             coalesce((SELECT j.run_time FROM jobs AS j WHERE j.tenant_id = v.tenant_id AND j.state = {ready}
                       ORDER BY j.run_time, j.id LIMIT 1) <= app.now(), false)
             AND (SELECT count(*) FROM jobs AS j WHERE j.tenant_id = v.tenant_id AND j.state = {running}) < $3
         ) AS is_due
         FROM visited AS v WHERE v.tenant_id IS NOT NULL ORDER BY v.n",
        ready = JobState::Ready,
        running = JobState::Running,
    );
    statement("list tenants with ready jobs", text)
        .bind::<SqlUuid, _>(after.map_or_else(Uuid::nil, TenantId::as_uuid))
        .bind::<BigInt, _>(tenants_max)
        .bind::<BigInt, _>(limits.tenant_jobs_max)
        .load(tx.connection()?)
        .await
}

#[derive(QueryableByName)]
#[diesel(table_name = jobs)]
struct ClaimedRow {
    tenant_id: TenantId,
    id: JobId,
    kind: String,
    payload: Readable<serde_json::Value>,
    attempts: i32,
    dependency_failures: i32,
    lease_epoch: i32,
}

/// Claims the job of each tenant that has been due for the longest time. Skips jobs that another worker is
/// claiming concurrently.
pub async fn claim(
    tx: &mut SystemTx,
    tenants: &[TenantId],
    limits: ClaimLimits,
) -> Result<Vec<ClaimedJob>, DbError> {
    // One locking lateral join per tenant.
    let text = sql!(
        "WITH picked AS MATERIALIZED (
             SELECT due.tenant_id, due.id FROM unnest($1) AS t (tenant_id) CROSS JOIN LATERAL (
                 SELECT j.tenant_id, j.id FROM jobs AS j
                 WHERE j.tenant_id = t.tenant_id AND j.state = {ready} AND j.run_time <= app.now()
                   AND (SELECT count(*) FROM jobs AS r WHERE r.tenant_id = t.tenant_id AND r.state = {running}) < $2
                 ORDER BY j.run_time, j.id LIMIT 1 FOR UPDATE SKIP LOCKED
             ) AS due
         )
         UPDATE jobs AS j SET state = {running}, attempts = j.attempts + 1, lease_epoch = j.lease_epoch + 1,
             lease_expire_time = app.now() + $3
         FROM picked WHERE j.tenant_id = picked.tenant_id AND j.id = picked.id
         RETURNING j.tenant_id, j.id, j.kind, j.payload, j.attempts, j.dependency_failures, j.lease_epoch",
        ready = JobState::Ready,
        running = JobState::Running,
    );
    let rows: Vec<ClaimedRow> = statement("claim jobs", text)
        .bind::<Array<SqlUuid>, _>(tenants.to_vec())
        .bind::<BigInt, _>(limits.tenant_jobs_max)
        .bind::<Interval, _>(seconds_u64(limits.lease_seconds))
        .load(tx.connection()?)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| ClaimedJob {
            lease: JobLease { tenant: row.tenant_id, id: row.id, epoch: row.lease_epoch },
            kind: row.kind,
            // No job has this payload, so the attempt reports that it is unreadable, and the other jobs run.
            payload: row.payload.or_damaged("payload", &mut Damage::default(), serde_json::Value::Null),
            attempt: row.attempts,
            dependency_failures: row.dependency_failures,
        })
        .collect())
}

/// A job whose lease expired.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = jobs)]
pub struct LostJob {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    pub id: JobId,
    pub kind: String,
    /// The number of attempts that were started.
    pub attempts: i32,
    /// Ready for another attempt, or parked because it has no attempts left.
    pub state: JobState,
}

/// Returns up to `limit` jobs with an expired lease to the queue.
///
/// Parks jobs that have used all their attempts, so that a job that crashes its workers does not run forever.
pub async fn recover_lost(tx: &mut SystemTx, attempts_max: i32, limit: i64) -> Result<Vec<LostJob>, DbError> {
    // An update of rows that a locking subquery picks.
    let text = sql!(
        "WITH lost AS MATERIALIZED (
             SELECT tenant_id, id FROM jobs WHERE state = {running} AND lease_expire_time <= app.now()
             ORDER BY lease_expire_time LIMIT $1 FOR UPDATE SKIP LOCKED
         )
         UPDATE jobs AS j SET
             state = CASE WHEN j.attempts >= $2 AND NOT j.is_rerun_requested THEN {parked} ELSE {ready} END,
             -- A rerun that was requested during the attempt is a new request, so it is not parked for the
             -- failures of the first one. Attempts are reset only then, or a job that a schedule requests
             -- repeatedly would be retried forever.
             attempts = CASE WHEN j.attempts >= $2 AND j.is_rerun_requested THEN 0 ELSE j.attempts END,
             run_time = app.now(),
             lease_expire_time = NULL, is_rerun_requested = false,
             last_error = 'the worker sent no heartbeat within the lease'
         FROM lost WHERE j.tenant_id = lost.tenant_id AND j.id = lost.id
         RETURNING j.tenant_id, j.id, j.kind, j.attempts, j.state",
        ready = JobState::Ready,
        running = JobState::Running,
        parked = JobState::Parked,
    );
    statement("recover jobs", text)
        .bind::<BigInt, _>(limit)
        .bind::<Integer, _>(attempts_max)
        .load(tx.connection()?)
        .await
}
