//! Operator actions on the job queue. They are recorded in the audit log of the job's tenant.

pub mod discard;
pub mod get;
pub mod list;
pub mod retry;
pub mod retry_all;
pub mod retry_parked;

use serde::Serialize;

use super::Error;
use crate::{
    db::{
        Database, SystemTx,
        audit_entries::{self, AuditAction, AuditEntry},
        jobs::{JobRow, JobState},
    },
    domain::{
        caller::{Actor, ActorKind},
        clock::Timestamp,
        ids::JobId,
    },
};

/// A queued job as shown to operators.
#[derive(Debug, Clone, Serialize)]
pub struct JobSummary {
    /// The id of the job.
    pub id: String,
    /// The id of the tenant.
    pub tenant: String,
    /// The kind of the job.
    pub kind: String,
    /// The state of the job.
    pub state: JobState,
    /// The number of attempts so far, including a running one.
    pub attempts: i32,
    /// The number of consecutive attempts that failed because of a dependency. They do not count.
    pub dependency_failures: i32,
    /// When the job was enqueued.
    pub enqueue_time: Timestamp,
    /// When the next attempt may start.
    pub run_time: Timestamp,
    /// When the lease of its worker expires, if the job is running.
    pub lease_expire_time: Option<Timestamp>,
    /// The error of the last attempt; empty if none failed.
    pub last_error: String,
    /// The job with its arguments.
    pub payload: serde_json::Value,
}

impl From<JobRow> for JobSummary {
    fn from(row: JobRow) -> Self {
        Self {
            id: row.id.to_string(),
            tenant: row.tenant.to_string(),
            kind: row.kind,
            state: row.state,
            attempts: row.attempts,
            dependency_failures: row.dependency_failures,
            enqueue_time: row.enqueue_time,
            run_time: row.run_time,
            lease_expire_time: row.lease_expire_time,
            last_error: row.last_error,
            payload: row.payload,
        }
    }
}

/// Why an operator action failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// No queued job has this id.
    #[error("job {0} is not queued; it has finished, was discarded, or never existed")]
    NotFound(JobId),
    /// A worker is running the job.
    #[error("job is running; wait until it has finished or failed")]
    Running,
    /// Another queued job has the same deduplication key.
    #[error("another queued job has the same deduplication key; discard this one")]
    AlreadyQueued,
    /// The database is unavailable, or an internal error occurred.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<crate::db::DbError> for JobError {
    fn from(error: crate::db::DbError) -> Self {
        Self::Failed(error.into())
    }
}

async fn lock_job(tx: &mut SystemTx, id: JobId) -> Result<JobRow, JobError> {
    crate::db::jobs::get(tx, id).await?.ok_or(JobError::NotFound(id))
}

/// Records an operator action in the audit log.
async fn audit_change(tx: &mut SystemTx, job: &JobRow, action: AuditAction) -> Result<(), JobError> {
    let mut entry = AuditEntry::system(
        action,
        serde_json::json!({ "job": job.id, "kind": job.kind, "attempts": job.attempts, "last_error": job.last_error }),
    );
    entry.actor = Actor { kind: ActorKind::Operator, id: "command line".to_owned() };
    Ok(audit_entries::insert_for(tx, job.tenant, &[entry]).await?)
}

async fn begin_tx(db: &Database) -> Result<SystemTx, JobError> {
    Ok(db.system_tx().await?)
}
