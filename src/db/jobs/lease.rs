//! What the holder of a job may do with it. Each statement compares the lease, and answers whether it still held.

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
        sweeps::seconds,
    },
    domain::ids::{JobId, TenantId},
};

/// By what a worker holds a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLease {
    /// Whose job.
    pub tenant: TenantId,
    /// Which.
    pub id: JobId,
    /// Of which claim.
    pub epoch: i32,
}

/// What comes after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another one, after this long.
    Retry(Duration),
    /// None, until an operator says so.
    Park,
}

/// Ends every statement of a holder.
const HELD: &str = "WHERE tenant_id = {} AND id = {} AND lease_epoch = {} AND state = 2";

impl JobLease {
    fn bind(self, statement: Statement) -> Statement {
        statement
            .bind::<SqlUuid, _>(self.tenant.as_uuid())
            .bind::<SqlUuid, _>(self.id.as_uuid())
            .bind::<Integer, _>(self.epoch)
    }
}

/// Extends the lease.
pub async fn beat(tx: &mut SystemTx, lease: JobLease, lease_seconds: u64) -> Result<bool, DbError> {
    let sql = format!("UPDATE jobs SET lease_expire_time = app.now() + make_interval(secs => {{}}) {HELD}");
    let beat = statement("extend lease of job", sql).bind::<Double, _>(seconds(lease_seconds));
    Ok(lease.bind(beat).execute(tx.connection()?).await? == 1)
}

#[derive(QueryableByName)]
struct Asked {
    #[diesel(sql_type = Bool)]
    is_asked_again: bool,
}

/// Ends a job that was done: its row goes to the finished ones. One that was asked for meanwhile is ready again instead.
pub async fn finish(tx: &mut SystemTx, lease: JobLease) -> Result<bool, DbError> {
    // The lock comes first: whoever is asking for it again at this moment is waited for.
    let lock = statement("lock job", format!("SELECT is_asked_again FROM jobs {HELD} FOR UPDATE"));
    let held: Option<Asked> = lease.bind(lock).first(tx.connection()?).await?;
    match held {
        None => Ok(false),
        Some(Asked { is_asked_again: true }) => {
            let sql = format!(
                "UPDATE jobs SET state = 1, attempts = 0, run_time = app.now(), lease_expire_time = NULL,
                    is_asked_again = false, last_error = '' {HELD}"
            );
            lease.bind(statement("run job again", sql)).execute(tx.connection()?).await?;
            Ok(true)
        }
        Some(_) => {
            let sql = archive(HELD);
            let end = statement("finish job", sql).bind::<SmallInt, _>(JobOutcome::Done.number());
            lease.bind(end).execute(tx.connection()?).await?;
            Ok(true)
        }
    }
}

/// Moves the row of a job to the finished ones; binds the outcome first, then the condition.
pub(super) fn archive(condition: &str) -> String {
    format!(
        "WITH o (outcome) AS (SELECT {{}}::smallint), ended AS (
             DELETE FROM jobs {condition}
             RETURNING tenant_id, id, kind, payload, attempts, last_error, enqueue_time
         )
         INSERT INTO finished_jobs
             (tenant_id, id, create_time, kind, payload, outcome, attempts, last_error, enqueue_time)
         SELECT tenant_id, id, app.now(), kind, payload, outcome, attempts, last_error, enqueue_time FROM ended, o"
    )
}

/// Notes that an attempt failed, and what comes next.
pub async fn fail(tx: &mut SystemTx, lease: JobLease, error: &str, next: Next) -> Result<bool, DbError> {
    let (state, pause) = match next {
        Next::Retry(pause) => (JobState::Ready, pause),
        Next::Park => (JobState::Parked, Duration::ZERO),
    };
    let sql = format!(
        "UPDATE jobs SET run_time = app.now() + make_interval(secs => {{}}), last_error = {{}},
            -- Asked for again while it ran: that is another request, which is not parked for what the first one did.
            state = CASE WHEN is_asked_again THEN 1 ELSE {{}} END,
            attempts = CASE WHEN is_asked_again AND {{}} = 3 THEN 0 ELSE attempts END,
            lease_expire_time = NULL, is_asked_again = false {HELD}"
    );
    let fail = statement("fail job", sql)
        .bind::<Double, _>(pause.as_secs_f64())
        .bind::<Text, _>(error.to_owned())
        .bind::<SmallInt, _>(state.number())
        .bind::<SmallInt, _>(state.number());
    Ok(lease.bind(fail).execute(tx.connection()?).await? == 1)
}

/// Gives a job back that was begun and not ended, because this worker goes away: the attempt does not count.
pub async fn release(tx: &mut SystemTx, lease: JobLease) -> Result<bool, DbError> {
    let sql = format!(
        "UPDATE jobs SET state = 1, attempts = greatest(attempts - 1, 0), run_time = app.now(),
            lease_expire_time = NULL, is_asked_again = false {HELD}"
    );
    let release = statement("release job", sql);
    Ok(lease.bind(release).execute(tx.connection()?).await? == 1)
}
