//! Work that is done after the transaction that asks for it: one closed enum. A job is a row in the same commit as its cause,
//! so that neither is ever there without the other.
//!
//! # What a handler must be
//!
//! *Idempotent*: a job is done at most once in effect, but it may be begun more often. A worker that dies in the middle, or is
//! cut off, leaves the job to another one, which begins from the start. So look at what is there, change what is not yet as
//! it must be, and make each step a transaction that looks again. *Able to stop*: a worker that loses its lease drops the
//! handler at its next await. *Short*, or cut into pieces: what is left over after a while is asked for again, so that other
//! tenants have their turn.
//!
//! # How to add a job
//!
//! A variant of [`Job`], with what the handler must know as its fields; an arm in `worker/dispatch.rs`, which does not
//! compile without it; and a use case in `app/` that does it. Then [`enqueue`] it where its cause is. Rows outlive versions
//! of this program: a field that comes later has a default, and one that goes stays readable.

use serde::{Deserialize, Serialize};

use crate::{
    db::{DbError, SystemTx, TenantTx, jobs},
    domain::{
        clock::IdSource,
        digest::Digest,
        ids::{FileId, JobId, TenantId},
    },
};

/// Everything that can be asked for. Each belongs to one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Job {
    /// Deletes the tenant's files whose time has come.
    DeleteExpiredFiles {},
    /// Brings the bytes of a file to the class of storage that they are to have now.
    SettleStorageClass {
        /// The file.
        file: FileId,
    },
    /// Reads what was uploaded directly, before anyone else may.
    VerifyUpload {
        /// The file.
        file: FileId,
        /// Which of its contents.
        version: i32,
        /// The digest that was declared, if one was.
        sha256: Option<Digest>,
        /// What its first bytes were recognised as when it was committed.
        sniffed: Option<String>,
    },
}

/// What keeps a job from being in the queue twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unless<'a> {
    /// Nothing does.
    Never,
    /// One of this tenant with this key, 1 to 255 characters, is ready or running. A running one is run once more, because it
    /// may have looked before this transaction commits. A parked one keeps nothing back.
    Queued(&'a str),
}

impl<'a> Unless<'a> {
    fn key(self) -> Option<&'a str> {
        match self {
            Self::Never => None,
            Self::Queued(key) => Some(key),
        }
    }
}

/// Asks for a job of the transaction's tenant. It is there when the transaction commits, and not before.
///
/// # Errors
/// When the database does not take it; the transaction is lost then.
pub async fn enqueue(
    tx: &mut TenantTx,
    ids: &dyn IdSource,
    job: &Job,
    unless: Unless<'_>,
) -> Result<(), DbError> {
    jobs::insert(tx, JobId::from_uuid(ids.uuid()), job, unless.key()).await
}

/// The same for any tenant, from work that goes across them.
///
/// # Errors
/// As [`enqueue`].
pub async fn enqueue_for(
    tx: &mut SystemTx,
    tenant: TenantId,
    ids: &dyn IdSource,
    job: &Job,
    unless: Unless<'_>,
) -> Result<(), DbError> {
    jobs::insert_for(tx, tenant, JobId::from_uuid(ids.uuid()), job, unless.key()).await
}

/// Reads a job as it stands in its row.
///
/// # Errors
/// When this version does not know its kind, or reads its fields otherwise: a newer one wrote it.
pub fn read(payload: &serde_json::Value) -> Result<Job, serde_json::Error> {
    Job::deserialize(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_comes_back_from_its_row_with_its_kind() {
        let job = Job::DeleteExpiredFiles {};
        let row = serde_json::to_value(&job).unwrap();
        assert_eq!(row["kind"], "delete_expired_files");
        assert_eq!(read(&row).unwrap(), job);
    }

    #[test]
    fn a_job_of_a_newer_version_is_named_and_not_mistaken() {
        let error = read(&serde_json::json!({ "kind": "fold_origami" })).unwrap_err().to_string();
        assert!(error.contains("fold_origami"), "{error}");
    }
}
