//! Discards a job.

use super::{JobError, JobSummary, audit_change, begin_tx, lock_job};
use crate::{
    db::{
        Database,
        audit_entries::AuditAction,
        jobs::{self, JobState},
    },
    domain::ids::JobId,
};

/// Discards a job that is not running. Returns the discarded job.
///
/// # Errors
/// Returns `NotFound`, `Running`, or an error if the database is unavailable.
pub async fn discard_job(db: &Database, id: JobId) -> Result<JobSummary, JobError> {
    let mut tx = begin_tx(db).await?;
    let job = lock_job(&mut tx, id).await?;
    if job.state == JobState::Running {
        return Err(JobError::Running);
    }
    jobs::discard(&mut tx, &job).await?;
    audit_change(&mut tx, &job, AuditAction::JobDiscard).await?;
    tx.commit().await?;
    Ok(job.into())
}
