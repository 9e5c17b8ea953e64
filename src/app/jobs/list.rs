//! Lists queued jobs.

use super::{JobError, JobSummary, begin_tx};
use crate::db::{
    Database,
    jobs::{self, JobState},
};

/// Lists at most `limit` queued jobs in the given states, or in any state if `states` is empty; those that
/// have waited longest first.
///
/// # Errors
/// Returns an error if the database is unavailable.
pub async fn list_jobs(db: &Database, states: &[JobState], limit: u32) -> Result<Vec<JobSummary>, JobError> {
    let states = if states.is_empty() { JobState::ALL } else { states };
    let mut tx = begin_tx(db).await?;
    let rows = jobs::list(&mut tx, states, i64::from(limit)).await?;
    tx.commit().await?;
    Ok(rows.into_iter().map(JobSummary::from).collect())
}
