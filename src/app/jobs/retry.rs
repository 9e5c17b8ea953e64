//! Retries a parked job.

use super::{JobError, JobSummary, audit_change, begin_tx, lock_job};
use crate::{
    db::{
        Constraint, Database, DbErrorKind,
        audit_entries::AuditAction,
        jobs::{self, JobState},
    },
    domain::ids::JobId,
};

/// Resets the attempts of a job that is parked or waits for its next attempt, and makes it due now.
///
/// # Errors
/// Returns `NotFound`, `Running`, `AlreadyQueued`, or an error if the database is
/// unavailable.
pub async fn retry_job(db: &Database, id: JobId) -> Result<JobSummary, JobError> {
    let mut tx = begin_tx(db).await?;
    let job = lock_job(&mut tx, id).await?;
    if job.state == JobState::Running {
        return Err(JobError::Running);
    }
    jobs::retry(&mut tx, &job).await.map_err(|error| match error.kind {
        DbErrorKind::Constraint(Constraint::JobsByKey) => JobError::AlreadyQueued,
        _ => error.into(),
    })?;
    audit_change(&mut tx, &job, AuditAction::JobRetry).await?;
    let job = lock_job(&mut tx, id).await?;
    tx.commit().await?;
    Ok(job.into())
}
