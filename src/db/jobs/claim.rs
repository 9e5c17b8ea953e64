//! Who gets which job next. Fair between tenants: a round goes from tenant to tenant and takes one job of each, so that one
//! with ten thousand jobs waits its turn like one with a single job; and it looks at a bounded number of tenants.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Double, Integer, Jsonb, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::JobLease;
use crate::{
    db::{DbError, SystemTx, statement::statement, sweeps::seconds},
    domain::ids::{JobId, TenantId},
};

/// On what terms jobs are claimed.
#[derive(Debug, Clone, Copy)]
pub struct ClaimTerms {
    /// How long a claim holds without a heartbeat, in seconds.
    pub lease_seconds: u64,
    /// How many jobs of one tenant may run at once, over all workers. Claims of two workers at the same moment may overshoot
    /// it by one.
    pub tenant_jobs_max: i64,
}

/// A job that this worker has now.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// By what it is held.
    pub lease: JobLease,
    /// Its kind.
    pub kind: String,
    /// What `jobs::read` makes a job of.
    pub payload: serde_json::Value,
    /// Which attempt this is, from 1.
    pub attempt: i32,
}

/// A tenant with jobs that are ready, some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub tenant: TenantId,
    /// One of them is due, and the tenant has room for it.
    pub is_due: bool,
}

#[derive(QueryableByName)]
struct CandidateRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = Bool)]
    is_due: bool,
}

/// The next tenants behind a place that have jobs which are ready, in the order of their ids, at most so many. Jumps from
/// tenant to tenant: what it costs does not depend on how many jobs they have. The orders are those of the index, or the
/// planner would rather walk through the table.
pub async fn candidates(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    tenants_max: i64,
    terms: ClaimTerms,
) -> Result<Vec<Candidate>, DbError> {
    let rows: Vec<CandidateRow> = statement(
        "find tenants with jobs",
        "WITH RECURSIVE visited (tenant_id, n) AS (
             SELECT (SELECT j.tenant_id FROM jobs AS j WHERE j.state = 1 AND j.tenant_id > {}
                     ORDER BY j.tenant_id, j.run_time, j.id LIMIT 1), 1
             UNION ALL
             SELECT (SELECT j.tenant_id FROM jobs AS j WHERE j.state = 1 AND j.tenant_id > visited.tenant_id
                     ORDER BY j.tenant_id, j.run_time, j.id LIMIT 1), n + 1
             FROM visited WHERE visited.tenant_id IS NOT NULL AND n < {}
         )
         SELECT v.tenant_id, (
             coalesce((SELECT j.run_time FROM jobs AS j WHERE j.tenant_id = v.tenant_id AND j.state = 1
                       ORDER BY j.run_time, j.id LIMIT 1) <= app.now(), false)
             AND (SELECT count(*) FROM jobs AS j WHERE j.tenant_id = v.tenant_id AND j.state = 2) < {}
         ) AS is_due
         FROM visited AS v WHERE v.tenant_id IS NOT NULL ORDER BY v.n",
    )
    .bind::<SqlUuid, _>(after.map_or_else(Uuid::nil, TenantId::as_uuid))
    .bind::<BigInt, _>(tenants_max)
    .bind::<BigInt, _>(terms.tenant_jobs_max)
    .load(tx.connection()?)
    .await?;
    let candidate =
        |row: CandidateRow| Candidate { tenant: TenantId::from_uuid(row.tenant_id), is_due: row.is_due };
    Ok(rows.into_iter().map(candidate).collect())
}

#[derive(QueryableByName)]
struct ClaimedRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Jsonb)]
    payload: serde_json::Value,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Integer)]
    lease_epoch: i32,
}

/// Takes the job of each tenant that is due longest, unless another worker is taking it at this moment.
pub async fn claim(
    tx: &mut SystemTx,
    tenants: &[TenantId],
    terms: ClaimTerms,
) -> Result<Vec<ClaimedJob>, DbError> {
    let rows: Vec<ClaimedRow> = statement(
        "claim jobs",
        "WITH picked AS MATERIALIZED (
             SELECT due.tenant_id, due.id FROM unnest({}) AS t (tenant_id) CROSS JOIN LATERAL (
                 SELECT j.tenant_id, j.id FROM jobs AS j
                 WHERE j.tenant_id = t.tenant_id AND j.state = 1 AND j.run_time <= app.now()
                   AND (SELECT count(*) FROM jobs AS r WHERE r.tenant_id = t.tenant_id AND r.state = 2) < {}
                 ORDER BY j.run_time, j.id LIMIT 1 FOR UPDATE SKIP LOCKED
             ) AS due
         )
         UPDATE jobs AS j SET state = 2, attempts = j.attempts + 1, lease_epoch = j.lease_epoch + 1,
             lease_expire_time = app.now() + make_interval(secs => {})
         FROM picked WHERE j.tenant_id = picked.tenant_id AND j.id = picked.id
         RETURNING j.tenant_id, j.id, j.kind, j.payload, j.attempts, j.lease_epoch",
    )
    .bind::<Array<SqlUuid>, _>(tenants.iter().map(|tenant| tenant.as_uuid()).collect::<Vec<_>>())
    .bind::<BigInt, _>(terms.tenant_jobs_max)
    .bind::<Double, _>(seconds(terms.lease_seconds))
    .load(tx.connection()?)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ClaimedJob {
            lease: JobLease {
                tenant: TenantId::from_uuid(row.tenant_id),
                id: JobId::from_uuid(row.id),
                epoch: row.lease_epoch,
            },
            kind: row.kind,
            payload: row.payload,
            attempt: row.attempts,
        })
        .collect())
}

/// A job whose worker was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostJob {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Attempts that have begun.
    pub attempts: i32,
    /// That was the last one it had.
    pub is_parked: bool,
}

#[derive(QueryableByName)]
struct LostRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Bool)]
    is_parked: bool,
}

/// Gives jobs whose lease ran out back to the queue, at most so many; parks those that have had all their attempts, so that
/// a job that kills its workers does not go on for ever.
pub async fn recover(tx: &mut SystemTx, attempts_max: i32, limit: i64) -> Result<Vec<LostJob>, DbError> {
    let rows: Vec<LostRow> = statement(
        "recover jobs",
        "WITH lost AS MATERIALIZED (
             SELECT tenant_id, id FROM jobs WHERE state = 2 AND lease_expire_time <= app.now()
             ORDER BY lease_expire_time LIMIT {} FOR UPDATE SKIP LOCKED
         )
         UPDATE jobs AS j SET state = CASE WHEN j.attempts >= {} AND NOT j.is_asked_again THEN 3 ELSE 1 END,
             -- Asked for again while it ran: that is another request, which is not parked for what the first one did. Up to
             -- there attempts count on, or a job that the clock asks for would be tried for ever.
             attempts = CASE WHEN j.attempts >= {} AND j.is_asked_again THEN 0 ELSE j.attempts END,
             run_time = app.now(),
             lease_expire_time = NULL, is_asked_again = false,
             last_error = 'its worker was lost: it sent no heartbeat within the lease'
         FROM lost WHERE j.tenant_id = lost.tenant_id AND j.id = lost.id
         RETURNING j.tenant_id, j.id, j.kind, j.attempts, j.state = 3 AS is_parked",
    )
    .bind::<BigInt, _>(limit)
    .bind::<Integer, _>(attempts_max)
    .bind::<Integer, _>(attempts_max)
    .load(tx.connection()?)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| LostJob {
            tenant: TenantId::from_uuid(row.tenant_id),
            id: JobId::from_uuid(row.id),
            kind: row.kind,
            attempts: row.attempts,
            is_parked: row.is_parked,
        })
        .collect())
}
