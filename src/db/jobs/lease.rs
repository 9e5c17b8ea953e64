//! Operations on a leased job. Each returns whether the worker still held the lease, and changes nothing if not.

use std::time::Duration;

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, IntoSql as _, NullableExpressionMethods as _,
    QueryDsl as _,
    dsl::case_when,
    sql_types::{Bool, Integer, SmallInt, Uuid as SqlUuid},
};

use super::{JobOutcome, JobState};
use crate::{
    db::{
        DbError, SystemTx,
        schema::jobs,
        sql::{OfTenant as _, greatest, interval, now, now_plus, query, seconds_u64, statement},
    },
    domain::{
        clock::Timestamp,
        ids::{JobId, TenantId},
    },
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
    /// Another attempt after a delay, because a dependency failed. The failed attempt does not count.
    Wait(Duration),
    /// No attempt, until an operator retries the job.
    Park,
}

/// Selects the job while the worker holds its lease.
macro_rules! held {
    ($lease:expr) => {
        jobs::table
            .of($lease.tenant)
            .filter(jobs::id.eq($lease.id))
            .filter(jobs::lease_epoch.eq($lease.epoch))
            .filter(jobs::state.eq(JobState::Running))
    };
}

/// Extends the lease.
pub async fn extend_lease(
    tx: &mut SystemTx,
    lease: JobLease,
    lease_seconds: u64,
) -> Result<LeaseState, DbError> {
    let expire_time = now_plus(seconds_u64(lease_seconds)).nullable();
    let extend = diesel::update(held!(lease)).set(jobs::lease_expire_time.eq(expire_time));
    Ok(LeaseState::from_changed_rows(query("extend lease of job", extend).execute(tx.connection()?).await?))
}

/// Finishes a job: moves its row to the finished jobs. If a rerun was requested in the meantime, makes it
/// ready again instead.
pub async fn finish(tx: &mut SystemTx, lease: JobLease) -> Result<LeaseState, DbError> {
    // Lock first, to wait for transactions that are requesting a rerun.
    let lock = held!(lease).select(jobs::is_rerun_requested).for_update();
    let is_rerun_requested: Option<bool> = query("lock job", lock).first(tx.connection()?).await?;
    match is_rerun_requested {
        None => Ok(LeaseState::Lost),
        Some(true) => {
            let again = diesel::update(held!(lease)).set((
                jobs::state.eq(JobState::Ready),
                jobs::attempts.eq(0),
                jobs::dependency_failures.eq(0),
                jobs::run_time.eq(now()),
                jobs::lease_expire_time.eq(None::<Timestamp>),
                jobs::is_rerun_requested.eq(false),
                jobs::last_error.eq(""),
            ));
            query("run job again", again).execute(tx.connection()?).await?;
            Ok(LeaseState::Held)
        }
        Some(false) => {
            let held = LockedJob { tenant: lease.tenant, id: lease.id, state: JobState::Running };
            archive("finish job", tx, held, JobOutcome::Done).await?;
            Ok(LeaseState::Held)
        }
    }
}

/// A job that the transaction has locked, in the state in which it was read.
pub(super) struct LockedJob {
    pub(super) tenant: TenantId,
    pub(super) id: JobId,
    pub(super) state: JobState,
}

/// Moves a locked job to the finished jobs.
pub(super) async fn archive(
    operation: &'static str,
    tx: &mut SystemTx,
    job: LockedJob,
    outcome: JobOutcome,
) -> Result<(), DbError> {
    // The query builder cannot insert what a statement deletes.
    statement(
        operation,
        "WITH deleted AS (
             DELETE FROM jobs WHERE tenant_id = $1 AND id = $2 AND state = $3
             RETURNING tenant_id, id, kind, payload, attempts, last_error, enqueue_time
         )
         INSERT INTO finished_jobs
             (tenant_id, id, create_time, kind, payload, outcome, attempts, last_error, enqueue_time)
         SELECT tenant_id, id, app.now(), kind, payload, $4, attempts, last_error, enqueue_time FROM deleted",
    )
    .bind::<SqlUuid, _>(job.tenant)
    .bind::<SqlUuid, _>(job.id)
    .bind::<SmallInt, _>(job.state)
    .bind::<SmallInt, _>(outcome)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Records a failed attempt, and schedules the next one or parks the job.
pub async fn fail(
    tx: &mut SystemTx,
    lease: JobLease,
    error: &str,
    next: NextAttempt,
) -> Result<LeaseState, DbError> {
    let (state, delay) = match next {
        NextAttempt::Retry(delay) | NextAttempt::Wait(delay) => (JobState::Ready, delay),
        NextAttempt::Park => (JobState::Parked, Duration::ZERO),
    };
    let is_wait = matches!(next, NextAttempt::Wait(_));
    let attempts = greatest(jobs::attempts - i32::from(is_wait), 0);
    let waited = case_when(is_wait.into_sql::<Bool>(), jobs::dependency_failures + 1)
        .otherwise(0.into_sql::<Integer>());
    // A rerun that was requested during the attempt starts with a new attempt count, so this failure does not
    // park it.
    let is_reset = jobs::is_rerun_requested.and((state == JobState::Parked).into_sql::<Bool>());
    let fail = diesel::update(held!(lease)).set((
        jobs::run_time.eq(now_plus(interval(delay))),
        jobs::last_error.eq(error),
        jobs::state
            .eq(case_when(jobs::is_rerun_requested, JobState::Ready.into_sql::<SmallInt>()).otherwise(state)),
        jobs::attempts.eq(case_when(is_reset, 0.into_sql::<Integer>()).otherwise(attempts)),
        jobs::dependency_failures.eq(waited),
        jobs::lease_expire_time.eq(None::<Timestamp>),
        jobs::is_rerun_requested.eq(false),
    ));
    Ok(LeaseState::from_changed_rows(query("fail job", fail).execute(tx.connection()?).await?))
}

/// Returns an unfinished job to the queue, because this worker is shutting down. The attempt does not count.
pub async fn release(tx: &mut SystemTx, lease: JobLease) -> Result<LeaseState, DbError> {
    let release = diesel::update(held!(lease)).set((
        jobs::state.eq(JobState::Ready),
        jobs::attempts.eq(greatest(jobs::attempts - 1, 0)),
        jobs::run_time.eq(now()),
        jobs::lease_expire_time.eq(None::<Timestamp>),
        jobs::is_rerun_requested.eq(false),
    ));
    Ok(LeaseState::from_changed_rows(query("release job", release).execute(tx.connection()?).await?))
}
