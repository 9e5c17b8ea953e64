//! Throws a job away.

use super::{JobError, JobReport, begin, locked, note};
use crate::{
    db::{
        Database,
        audit_entries::AuditAction,
        jobs::{self, JobState},
    },
    domain::ids::JobId,
};

/// Throws away a job that no worker has; answers how it stood.
///
/// # Errors
/// `NotFound`, `WrongState` for one that is running; when the database does not answer.
pub async fn discard(db: &Database, id: JobId) -> Result<JobReport, JobError> {
    let mut tx = begin(db).await?;
    let job = locked(&mut tx, id).await?;
    if job.state == JobState::Running {
        return Err(JobError::WrongState { state: job.state, advice: "wait until it has ended or failed" });
    }
    jobs::discard(&mut tx, &job).await?;
    note(&mut tx, &job, AuditAction::JobDiscard).await?;
    tx.commit().await?;
    Ok(job.into())
}
