//! Tries a parked job again.

use super::{JobError, JobReport, begin, locked, note};
use crate::{
    db::{
        Database, DbErrorKind,
        audit_entries::AuditAction,
        jobs::{self, JobState},
    },
    domain::ids::JobId,
};

/// Gives a job all its attempts again, from now on: one that is parked, or one that waits for its next attempt.
///
/// # Errors
/// `NotFound`, `WrongState` for one that is running, `InQueueAlready`; when the database does not answer.
pub async fn retry(db: &Database, id: JobId) -> Result<JobReport, JobError> {
    let mut tx = begin(db).await?;
    let job = locked(&mut tx, id).await?;
    if job.state == JobState::Running {
        return Err(JobError::WrongState { state: job.state, advice: "wait for its end" });
    }
    jobs::retry(&mut tx, &job).await.map_err(|error| match &error.kind {
        DbErrorKind::Constraint(name) if name == "jobs_by_key" => JobError::InQueueAlready,
        _ => error.into(),
    })?;
    note(&mut tx, &job, AuditAction::JobRetry).await?;
    let job = locked(&mut tx, id).await?;
    tx.commit().await?;
    Ok(job.into())
}
