//! Background jobs: work that runs after the transaction that causes it, as one closed enum. Jobs are rows,
//! enqueued in the transaction that causes them, so that neither can exist without the other.
//!
//! # Requirements for a handler
//!
//! - *Idempotent*. A job takes effect at most once, but may run several times: if a worker crashes or is
//!   interrupted, another worker starts the job from the beginning. A handler reads the current state,
//!   applies the changes that are missing, and checks again in each transaction.
//! - *Cancellable*. A worker that loses its lease drops the handler at its next await point.
//! - *Short*, or divided into pieces: after a while the handler enqueues the rest as a new job, so that other
//!   tenants get their turn.
//!
//! # How to add a job
//!
//! Add a variant to [`Job`] with the handler's arguments as fields, an arm in `worker/dispatch.rs` (which
//! does not compile without it), and a use case in `app/`. Then call [`enqueue_job`] in the transaction that
//! causes the job. Rows outlive versions of this program: a new field needs a default, and a removed field
//! must stay readable.

use serde::{Deserialize, Serialize};

use crate::{
    db::{DbError, SystemTx, TenantTx, Viewer, jobs},
    domain::{
        clock::IdSource,
        digest::Digest,
        ids::{FileId, JobId, TenantId},
    },
};

/// A job. Each belongs to one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Job {
    /// Deletes the tenant's expired files.
    DeleteExpiredFiles {},
    /// Moves the bytes of a file to the storage class that applies to it now.
    ApplyStorageClass { file: FileId },
    /// Compares the quota and the usage counters of the tenant with its files, and repairs them.
    RecalculateUsage {},
    /// Sends the e-mails of a quota alert. `app.raise_quota_alert` enqueues it.
    SendQuotaAlert {
        /// The number of the alert.
        number: i64,
    },
    /// Verifies a direct upload before anyone else may read it.
    VerifyUpload {
        file: FileId,
        /// The version to verify.
        version: i32,
        /// The declared digest, if any.
        sha256: Option<Digest>,
        /// The content type detected from the first bytes at the commit.
        sniffed: Option<String>,
        /// The permissions of the uploader, which are checked again before the version becomes current. `None`
        /// in jobs of earlier releases.
        #[serde(default)]
        uploader: Option<Viewer>,
    },
}

/// How duplicates of a job in the queue are prevented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deduplicate<'a> {
    /// Duplicates are allowed.
    Never,
    /// Does not enqueue the job if the tenant has a ready or running job with this key, of 1 to 255
    /// characters. A running job is run again, because it may have read its data before this transaction
    /// commits. A parked job does not count.
    ByKey(&'a str),
}

impl<'a> Deduplicate<'a> {
    fn key(self) -> Option<&'a str> {
        match self {
            Self::Never => None,
            Self::ByKey(key) => Some(key),
        }
    }
}

/// Enqueues a job for the transaction's tenant. It becomes visible when the transaction commits.
///
/// # Errors
/// Returns an error if the database rejects the row; the transaction is then aborted.
pub async fn enqueue_job(
    tx: &mut TenantTx,
    ids: &dyn IdSource,
    job: &Job,
    deduplicate: Deduplicate<'_>,
) -> Result<(), DbError> {
    jobs::insert(tx, JobId::from_uuid(ids.uuid()), job, deduplicate.key()).await
}

/// Enqueues a job for any tenant, from work across tenants.
pub async fn enqueue_job_for(
    tx: &mut SystemTx,
    tenant: TenantId,
    ids: &dyn IdSource,
    job: &Job,
    deduplicate: Deduplicate<'_>,
) -> Result<(), DbError> {
    jobs::insert_for(tx, tenant, JobId::from_uuid(ids.uuid()), job, deduplicate.key()).await
}

/// Parses a job from its row.
///
/// # Errors
/// Returns an error if this version does not know the kind or the fields, because a newer version wrote the
/// row.
pub fn parse_job(payload: &serde_json::Value) -> Result<Job, serde_json::Error> {
    Job::deserialize(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_round_trips_through_its_row() {
        let job = Job::DeleteExpiredFiles {};
        let row = serde_json::to_value(&job).unwrap();
        assert_eq!(row["kind"], "delete_expired_files");
        assert_eq!(parse_job(&row).unwrap(), job);
    }

    #[test]
    fn unknown_kind_is_reported_by_name() {
        let error = parse_job(&serde_json::json!({ "kind": "fold_origami" })).unwrap_err().to_string();
        assert!(error.contains("fold_origami"), "{error}");
    }
}
