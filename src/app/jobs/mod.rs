//! What operators do with the queue. Who did what is in the audit log of the job's tenant.

pub mod discard;
pub mod list;
pub mod retry;
pub mod show;

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

/// A live job, as operators see it.
#[derive(Debug, Clone, Serialize)]
pub struct JobReport {
    /// Which.
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// Its kind.
    pub kind: String,
    /// How it stands.
    pub state: JobState,
    /// Attempts that have begun.
    pub attempts: i32,
    /// When it was asked for.
    pub enqueue_time: Timestamp,
    /// When the next attempt may begin.
    pub run_time: Timestamp,
    /// Until when its worker has it, while it is running.
    pub lease_expire_time: Option<Timestamp>,
    /// Why the last attempt failed, or empty.
    pub last_error: String,
    /// What the job is about.
    pub payload: serde_json::Value,
}

impl From<JobRow> for JobReport {
    fn from(row: JobRow) -> Self {
        Self {
            id: row.id.to_string(),
            tenant: row.tenant.to_string(),
            kind: row.kind,
            state: row.state,
            attempts: row.attempts,
            enqueue_time: row.enqueue_time,
            run_time: row.run_time,
            lease_expire_time: row.lease_expire_time,
            last_error: row.last_error,
            payload: row.payload,
        }
    }
}

/// Why an operator did not get what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// There is no live job with this id.
    #[error("there is no job {0} in the queue; it was done or discarded, or never was")]
    NotFound(JobId),
    /// It stands otherwise than it would have to.
    #[error("the job is {state}; {advice}")]
    WrongState {
        /// How it stands.
        state: JobState,
        /// What to do.
        advice: &'static str,
    },
    /// The same is being done already.
    #[error("another job for the same is in the queue already; discard this one")]
    InQueueAlready,
    /// The database, or we.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<crate::db::DbError> for JobError {
    fn from(error: crate::db::DbError) -> Self {
        Self::Failed(error.into())
    }
}

async fn locked(tx: &mut SystemTx, id: JobId) -> Result<JobRow, JobError> {
    crate::db::jobs::get(tx, id).await?.ok_or(JobError::NotFound(id))
}

/// Writes down what an operator did with a job.
async fn note(tx: &mut SystemTx, job: &JobRow, action: AuditAction) -> Result<(), JobError> {
    let mut entry = AuditEntry::system(
        action,
        serde_json::json!({ "job": job.id, "kind": job.kind, "attempts": job.attempts, "last_error": job.last_error }),
    );
    entry.actor = Actor { kind: ActorKind::Operator, id: "command line".to_owned() };
    Ok(audit_entries::insert_for(tx, job.tenant, &[entry]).await?)
}

async fn begin(db: &Database) -> Result<SystemTx, JobError> {
    Ok(db.system_tx().await?)
}
