//! Retries all parked jobs.

use serde::Serialize;

use super::{JobError, JobSummary, begin_tx, retry::retry_job};
use crate::{
    db::{Database, jobs},
    domain::ids::JobId,
};

/// The number of jobs that one call retries.
pub const JOBS_MAX: i64 = 10_000;

/// A parked job that could not be retried.
#[derive(Debug, Clone, Serialize)]
pub struct SkippedJob {
    pub job: JobSummary,
    /// Why it was not retried.
    pub reason: String,
}

/// The result of retrying all parked jobs.
#[derive(Debug, Clone, Serialize)]
pub struct RetryReport {
    /// Whether nothing was changed.
    pub is_dry_run: bool,
    /// The jobs that were retried, or would be in a dry run.
    pub retried: Vec<JobSummary>,
    /// The jobs that could not be retried.
    pub skipped: Vec<SkippedJob>,
    /// Whether there may be more parked jobs than one call retries.
    pub has_more: bool,
}

/// Retries all parked jobs of one kind, or of all kinds, as [`retry_job`] does. In a dry run, only lists them.
///
/// # Errors
/// Returns an error if the database is unavailable. Earlier retries are not rolled back.
pub async fn retry_all_jobs(
    db: &Database,
    kind: Option<&str>,
    is_dry_run: bool,
) -> Result<RetryReport, JobError> {
    let mut tx = begin_tx(db).await?;
    let parked = jobs::list_parked(&mut tx, kind, JOBS_MAX).await?;
    tx.commit().await?;
    let has_more = i64::try_from(parked.len()).unwrap_or(i64::MAX) >= JOBS_MAX;
    let mut report = RetryReport { is_dry_run, retried: Vec::new(), skipped: Vec::new(), has_more };
    for job in parked {
        let id: JobId = job.id;
        let listed = JobSummary::from(job);
        if is_dry_run {
            report.retried.push(listed);
            continue;
        }
        match retry_job(db, id).await {
            Ok(retried) => report.retried.push(retried),
            Err(JobError::Failed(error)) => return Err(error.into()),
            Err(skipped) => report.skipped.push(SkippedJob { job: listed, reason: skipped.to_string() }),
        }
    }
    Ok(report)
}
