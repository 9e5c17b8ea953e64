//! Returns one job.

use super::{JobError, JobSummary, begin_tx, lock_job};
use crate::{db::Database, domain::ids::JobId};

/// Returns a queued job.
///
/// # Errors
/// Returns `NotFound`, or an error if the database is unavailable.
pub async fn get_job(db: &Database, id: JobId) -> Result<JobSummary, JobError> {
    let mut tx = begin_tx(db).await?;
    let job = lock_job(&mut tx, id).await?;
    tx.commit().await?;
    Ok(job.into())
}
