//! Attempts parked jobs again, in case the cause of their failures is gone.

use crate::{
    app::{App, Error, RoundReport},
    db::jobs,
};

/// The number of jobs that one round makes ready.
const JOBS_PER_ROUND: i64 = 100;

/// Makes the jobs ready that have been parked for `worker.parked_retry_seconds`. Each gets one attempt, which parks
/// it again if it fails.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn retry_parked_jobs(app: &App) -> Result<RoundReport, Error> {
    let config = &app.limits.worker;
    let attempts_max = i32::try_from(config.attempts_max).unwrap_or(i32::MAX);
    let mut tx = app.db.system_tx().await?;
    let retried =
        jobs::retry_parked(&mut tx, config.parked_retry_seconds, attempts_max, JOBS_PER_ROUND).await?;
    tx.commit().await?;
    for jobs::RetriedJob { tenant, id, kind } in &retried {
        tracing::info!(%tenant, job = %id, kind, "retrying a parked job");
    }
    let is_last = i64::try_from(retried.len()).unwrap_or(i64::MAX) < JOBS_PER_ROUND;
    // The jobs count when they are done.
    Ok(RoundReport { has_more: !is_last, ..RoundReport::default() })
}
