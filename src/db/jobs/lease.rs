//! Operations on a leased job. Each returns whether the worker still held the lease, and changes nothing if not.

use std::time::Duration;

use diesel::{
    QueryableByName,
    sql_types::{Bool, Double, Integer, SmallInt, Text, Uuid as SqlUuid},
};

use super::{JobOutcome, JobState};
use crate::{
    db::{
        DbError, SystemTx,
        statement::{Statement, statement},
        sweeps::to_interval_seconds,
    },
    domain::ids::{JobId, TenantId},
};

/// The lease by which a worker holds a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLease {
    pub tenant: TenantId,
    pub id: JobId,
    /// The epoch that the claim assigned.
    pub epoch: i32,
}

/// Whether a worker held the lease of a job when its statement ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum LeaseState {
    /// It held the lease, and the statement took effect.
    Held,
    /// The lease expired, or the job is not running any more. The statement changed nothing.
    Lost,
}

impl LeaseState {
    /// Returns the state by the number of rows that a statement of the holder changed.
    fn from_changed_rows(count: usize) -> Self {
        if count == 1 { Self::Held } else { Self::Lost }
    }
}

/// The action after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// Another attempt after a delay.
    Retry(Duration),
    /// No attempt, until an operator retries the job.
    Park,
}

/// Matches the job only while the worker holds its lease.
const IS_HELD: &str = "WHERE tenant_id = {} AND id = {} AND lease_epoch = {} AND state = 2";

impl JobLease {
    fn bind(self, statement: Statement) -> Statement {
        statement
            .bind::<SqlUuid, _>(self.tenant.as_uuid())
            .bind::<SqlUuid, _>(self.id.as_uuid())
            .bind::<Integer, _>(self.epoch)
    }
}

/// Extends the lease.
pub async fn extend_lease(
    tx: &mut SystemTx,
    lease: JobLease,
    lease_seconds: u64,
) -> Result<LeaseState, DbError> {
    let sql =
        format!("UPDATE jobs SET lease_expire_time = app.now() + make_interval(secs => {{}}) {IS_HELD}");
    let extend = statement("extend lease of job", sql).bind::<Double, _>(to_interval_seconds(lease_seconds));
    Ok(LeaseState::from_changed_rows(lease.bind(extend).execute(tx.connection()?).await?))
}

#[derive(QueryableByName)]
struct RerunRow {
    #[diesel(sql_type = Bool)]
    is_rerun_requested: bool,
}

/// Finishes a job: moves its row to the finished jobs. If a rerun was requested in the meantime, makes it
/// ready again instead.
pub async fn finish(tx: &mut SystemTx, lease: JobLease) -> Result<LeaseState, DbError> {
    // Lock first, to wait for transactions that are requesting a rerun.
    let lock = statement("lock job", format!("SELECT is_rerun_requested FROM jobs {IS_HELD} FOR UPDATE"));
    let held: Option<RerunRow> = lease.bind(lock).first(tx.connection()?).await?;
    match held {
        None => Ok(LeaseState::Lost),
        Some(RerunRow { is_rerun_requested: true }) => {
            let sql = format!(
                "UPDATE jobs SET state = 1, attempts = 0, run_time = app.now(), lease_expire_time = NULL,
                    is_rerun_requested = false, last_error = '' {IS_HELD}"
            );
            lease.bind(statement("run job again", sql)).execute(tx.connection()?).await?;
            Ok(LeaseState::Held)
        }
        Some(_) => {
            let sql = archive(IS_HELD);
            let end = statement("finish job", sql).bind::<SmallInt, _>(JobOutcome::Done.number());
            lease.bind(end).execute(tx.connection()?).await?;
            Ok(LeaseState::Held)
        }
    }
}

/// Builds a statement that moves a job to the finished jobs. Its binds are the outcome, then those of the
/// condition.
pub(super) fn archive(condition: &str) -> String {
    format!(
        "WITH o (outcome) AS (SELECT {{}}::smallint), deleted AS (
             DELETE FROM jobs {condition}
             RETURNING tenant_id, id, kind, payload, attempts, last_error, enqueue_time
         )
         INSERT INTO finished_jobs
             (tenant_id, id, create_time, kind, payload, outcome, attempts, last_error, enqueue_time)
         SELECT tenant_id, id, app.now(), kind, payload, outcome, attempts, last_error, enqueue_time FROM deleted, o"
    )
}

/// Records a failed attempt, and schedules the next one or parks the job.
pub async fn fail(
    tx: &mut SystemTx,
    lease: JobLease,
    error: &str,
    next: NextAttempt,
) -> Result<LeaseState, DbError> {
    let (state, delay) = match next {
        NextAttempt::Retry(delay) => (JobState::Ready, delay),
        NextAttempt::Park => (JobState::Parked, Duration::ZERO),
    };
    let sql = format!(
        "UPDATE jobs SET run_time = app.now() + make_interval(secs => {{}}), last_error = {{}},
            -- A rerun that was requested during the attempt starts with a new attempt count, so this
            -- failure does not park it.
            state = CASE WHEN is_rerun_requested THEN 1 ELSE {{}} END,
            attempts = CASE WHEN is_rerun_requested AND {{}} = 3 THEN 0 ELSE attempts END,
            lease_expire_time = NULL, is_rerun_requested = false {IS_HELD}"
    );
    let fail = statement("fail job", sql)
        .bind::<Double, _>(delay.as_secs_f64())
        .bind::<Text, _>(error.to_owned())
        .bind::<SmallInt, _>(state.number())
        .bind::<SmallInt, _>(state.number());
    Ok(LeaseState::from_changed_rows(lease.bind(fail).execute(tx.connection()?).await?))
}

/// Returns an unfinished job to the queue, because this worker is shutting down. The attempt does not count.
pub async fn release(tx: &mut SystemTx, lease: JobLease) -> Result<LeaseState, DbError> {
    let sql = format!(
        "UPDATE jobs SET state = 1, attempts = greatest(attempts - 1, 0), run_time = app.now(),
            lease_expire_time = NULL, is_rerun_requested = false {IS_HELD}"
    );
    let release = statement("release job", sql);
    Ok(LeaseState::from_changed_rows(lease.bind(release).execute(tx.connection()?).await?))
}
