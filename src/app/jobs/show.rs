//! Shows one job.

use super::{JobError, JobReport, begin, locked};
use crate::{db::Database, domain::ids::JobId};

/// A live job.
///
/// # Errors
/// `NotFound`; when the database does not answer.
pub async fn show(db: &Database, id: JobId) -> Result<JobReport, JobError> {
    let mut tx = begin(db).await?;
    let job = locked(&mut tx, id).await?;
    tx.commit().await?;
    Ok(job.into())
}
