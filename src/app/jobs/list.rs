//! Shows the queue.

use super::{JobError, JobReport, begin};
use crate::db::{
    Database,
    jobs::{self, JobState},
};

/// Live jobs in one of these states, or in any where none is named; those that wait longest first, at most so many.
///
/// # Errors
/// When the database does not answer.
pub async fn list(db: &Database, states: &[JobState], limit: u32) -> Result<Vec<JobReport>, JobError> {
    let states = if states.is_empty() { JobState::ALL } else { states };
    let mut tx = begin(db).await?;
    let rows = jobs::list(&mut tx, states, i64::from(limit)).await?;
    tx.commit().await?;
    Ok(rows.into_iter().map(JobReport::from).collect())
}
