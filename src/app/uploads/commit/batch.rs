//! Writes the rows of finished uploads, in batches per tenant.
//!
//! The rows are written in one fixed order, which is also the lock order, by the database function
//! `app.commit_uploads`: one round trip instead of fourteen. Finished uploads of one tenant are committed
//! together. If their sum exceeds the quota, or anything else rejects the batch, it is committed again one
//! upload at a time in the order of arrival, so that no upload fails because of another.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::{
    super::error::count_refusal,
    CommitReceipt, PendingCommit, VerificationJob,
    response::{UncommittedUpload, replay_upload},
};
use crate::{
    app::{
        Denial, Error, Limits, Resource, group::BatchHandler, quotas::charge::commit_error,
        uploads::UploadError,
    },
    db::{
        Database, DbError, DbErrorKind, TenantTx, TransactionId, Viewer, WrittenRow,
        commit::{self, UploadCommitOutcome},
        finished_upload::{FinishedDestination, FinishedUpload},
        idempotency_keys::StoredResponse,
        jobs,
    },
    domain::{
        clock::{Clock, Timestamp},
        file::FIRST_VERSION,
        ids::{FileId, TenantId},
        quota::QuotaFigures,
        upload_destination::NewVersion,
        violations::Violations,
    },
    jobs::Job,
    telemetry::Metrics,
};

impl VerificationJob {
    /// Creates the job for the version number that the commit assigned.
    fn to_job(&self, file: FileId, version: i32, uploader: Viewer) -> Job {
        let Self { sha256, sniffed, .. } = self;
        let uploader = Some(uploader);
        Job::VerifyUpload { file, version, sha256: *sha256, sniffed: sniffed.clone(), uploader }
    }
}

impl PendingCommit {
    fn to_finished_upload(&self) -> FinishedUpload<'_, UncommittedUpload<'_>> {
        FinishedUpload {
            destination: &self.destination,
            content: &self.content,
            created_by: &self.created_by,
            uploader: &self.uploader,
            change_description: &self.change_description,
            blob: &self.blob,
            block_checksums: self.block_checksums.as_ref(),
            audit: &self.audit,
            lease: self.lease,
            request: self.request,
            response: self.uncommitted(),
        }
    }

    fn uncommitted(&self) -> UncommittedUpload<'_> {
        UncommittedUpload {
            tenant: self.tenant,
            destination: Cow::Borrowed(&self.destination),
            content: Cow::Borrowed(&self.content),
            created_by: Cow::Borrowed(&self.created_by),
            warnings: Cow::Borrowed(&self.warnings),
        }
    }

    /// Returns the file that gets a new version, if this is not a new file.
    fn new_version(&self) -> Option<&NewVersion> {
        match &self.destination {
            FinishedDestination::NewFile { .. } => None,
            FinishedDestination::NewVersion { version, .. } => Some(version),
        }
    }

    /// Returns the maximum number of versions of the file that gets a new version.
    fn version_count_max(&self) -> u32 {
        match &self.destination {
            FinishedDestination::NewFile { .. } => u32::MAX,
            FinishedDestination::NewVersion { version_count_max, .. } => *version_count_max,
        }
    }

    /// Returns the age of the object of a small file, which was sent to the store after `store_time`.
    fn object_age(&self, now: Timestamp) -> Duration {
        (now - self.store_time).to_std().unwrap_or_default()
    }

    /// Returns the bytes to charge: an upload with a reservation is covered by it.
    fn needed_bytes(&self) -> i64 {
        match self.lease {
            Some(_) => 0,
            None => i64::try_from(self.blob.size_bytes).unwrap_or(i64::MAX),
        }
    }

    /// Returns the outcome of this item. If there is none, the whole transaction must be rolled back.
    fn to_outcome(&self, outcome: UploadCommitOutcome, quota: QuotaFigures) -> Result<ItemOutcome, Error> {
        Ok(match outcome {
            UploadCommitOutcome::Committed(times, file_record) => Ok(CommitReceipt {
                upload: self.uncommitted().into_committed(times, file_record, quota)?,
                is_replay: false,
            }),
            UploadCommitOutcome::Replayed(stored) => self.to_replay(stored),
            UploadCommitOutcome::InProgress => Err(Error::RequestInProgress),
            UploadCommitOutcome::Fenced => Err(UploadError::Fenced.into()),
            UploadCommitOutcome::FileNotFound => Err(Error::NotFound(Resource::File)),
            UploadCommitOutcome::FileState(state) => Err(Error::for_file_state(state)),
            UploadCommitOutcome::NotAllowed => Err(Error::NotAllowed(Denial::OwnerAndAdminsOnly)),
            UploadCommitOutcome::EtagMismatch => Err(Error::EtagMismatch),
            // Refuses the whole batch: an earlier item for the same file counts, even if it is not committed.
            UploadCommitOutcome::TooManyVersions => {
                return Err(Error::TooManyVersions { version_count_max: self.version_count_max() });
            }
            UploadCommitOutcome::CategoryChanged => Err(Violations::one(
                "spec.file_id",
                "moved to a category with other allowed types during the upload; upload the version again",
            )
            .into()),
        })
    }

    fn to_replay(&self, stored: StoredResponse) -> ItemOutcome {
        let request =
            self.request.ok_or_else(|| Error::internal("replayed response without a request id"))?;
        Ok(CommitReceipt { upload: replay_upload(stored, request.payload)?, is_replay: true })
    }
}

/// Commits finished uploads in batches per tenant.
pub(in crate::app) struct UploadCommitter {
    db: Database,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    idempotency_hours: u32,
    /// The maximum age of an object whose row does not exist yet when its row is committed.
    object_age_max: Duration,
}

type ItemOutcome = Result<CommitReceipt, Error>;

/// Why a transaction failed as a whole.
enum BatchError {
    /// The batch exceeds the quota or a row was rejected. The uploads are retried one by one.
    Refused(Error),
    /// The database is unavailable, or has no connection for the tenant. Retrying one by one would only take
    /// longer.
    Unavailable(DbError),
    /// COMMIT was sent and its outcome is unknown.
    Unknown(DbError),
}

impl From<DbError> for BatchError {
    fn from(error: DbError) -> Self {
        match error.kind {
            DbErrorKind::Unavailable | DbErrorKind::ReadOnly | DbErrorKind::Exhausted => {
                Self::Unavailable(error)
            }
            DbErrorKind::OutcomeUnknown { .. } => Self::Unknown(error),
            _ => Self::Refused(error.into()),
        }
    }
}

impl UploadCommitter {
    pub(in crate::app) fn new(
        db: Database,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        limits: &Limits,
    ) -> Self {
        let idempotency_hours = u32::try_from(limits.retention.idempotency_hours).unwrap_or(u32::MAX);
        // The sweeper considers objects that are older than the grace period. Half of the grace period is
        // left for the transaction, which has its own time limits, and for clock differences.
        let object_age_max = limits.sweeping.grace_period() / 2;
        Self { db, clock, metrics, idempotency_hours, object_age_max }
    }
}

#[async_trait]
impl BatchHandler for UploadCommitter {
    type Item = PendingCommit;
    type Outcome = ItemOutcome;

    async fn run_batch(&self, tenant: TenantId, items: Vec<PendingCommit>) -> Vec<ItemOutcome> {
        let outcomes = if has_dependent_items(&items) {
            self.commit_singly(tenant, &items).await
        } else {
            match self.commit(tenant, &items).await {
                Err(BatchError::Refused(_)) if items.len() > 1 => self.commit_singly(tenant, &items).await,
                Ok(outcomes) => outcomes,
                Err(error) => fail_all(&items, error),
            }
        };
        for outcome in &outcomes {
            if let Err(error) = outcome {
                count_refusal(&self.metrics, error);
            }
        }
        outcomes
    }
}

impl BatchError {
    fn into_error(self, item: &PendingCommit) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Unavailable(error) => error.into(),
            Self::Unknown(error) => outcome_unknown(item, &error),
        }
    }
}

/// Returns whether a version with an `if_etag` has the same file as another item. A batch checks all etags
/// before it writes, so such items are committed one by one.
fn has_dependent_items(items: &[PendingCommit]) -> bool {
    let versions = || items.iter().filter_map(PendingCommit::new_version);
    let count_for_file = |id| versions().filter(|version| version.file == id).count();
    versions().any(|version| !version.if_etag.is_empty() && count_for_file(version.file) > 1)
}

fn fail_all(items: &[PendingCommit], error: BatchError) -> Vec<ItemOutcome> {
    match error {
        BatchError::Refused(error) => vec![Err(error)],
        BatchError::Unavailable(error) => items.iter().map(|_| Err(error.clone().into())).collect(),
        BatchError::Unknown(error) => items.iter().map(|item| Err(outcome_unknown(item, &error))).collect(),
    }
}

fn outcome_unknown(item: &PendingCommit, error: &DbError) -> Error {
    Error::OutcomeUnknown { has_request_id: item.request.is_some(), source: error.clone().into() }
}

impl UploadCommitter {
    /// Commits items one by one, in the order of arrival. If the database becomes unavailable, the remaining
    /// items fail without another attempt.
    async fn commit_singly(&self, tenant: TenantId, items: &[PendingCommit]) -> Vec<ItemOutcome> {
        let mut outcomes = Vec::with_capacity(items.len());
        for item in items {
            match self.commit(tenant, std::slice::from_ref(item)).await {
                Ok(single) => outcomes.extend(single),
                Err(BatchError::Unavailable(error)) => {
                    outcomes.resize_with(items.len(), || Err(error.clone().into()));
                    return outcomes;
                }
                Err(error) => outcomes.push(Err(error.into_error(item))),
            }
        }
        outcomes
    }

    /// Commits items in one transaction. Returns one outcome per item, in order.
    async fn commit(
        &self,
        tenant: TenantId,
        items: &[PendingCommit],
    ) -> Result<Vec<ItemOutcome>, BatchError> {
        let started = Instant::now();
        let mut tx = self.db.tenant_tx(tenant, &Viewer::system()).await?;
        // Read the clock after acquiring the connection: waiting for one counts towards the age.
        let now = self.clock.now();
        let timely: Vec<_> = items.iter().filter(|item| !self.is_too_late(item, now)).collect();
        if timely.is_empty() {
            let refused = items.iter().map(|item| Err(self.too_late_error(item, now))).collect();
            return tx.finish(Ok(refused)).await;
        }
        let written = self.write_rows(&mut tx, &timely).await;
        let (outcomes, transaction) = match written {
            Ok(written) => written,
            Err(error) => return tx.finish::<_, BatchError>(Err(error)).await,
        };
        // A file that receives a version has rows already, so only the new blob shows whether the transaction
        // was committed.
        let is_new = |outcome: &ItemOutcome| matches!(outcome, Ok(CommitReceipt { is_replay: false, .. }));
        let new = timely.iter().zip(&outcomes).find(|(_, outcome)| is_new(outcome));
        tx.note_written(transaction, new.map(|(item, _)| WrittenRow::Blob(item.blob.id)));
        tx.commit().await?;
        self.metrics.record_commit(timely.len() as u64, started.elapsed());
        let mut outcomes = outcomes.into_iter();
        let outcome = |item| match self.is_too_late(item, now) {
            true => Err(self.too_late_error(item, now)),
            false => {
                outcomes.next().unwrap_or_else(|| Err(Error::internal("commit returned too few outcomes")))
            }
        };
        Ok(items.iter().map(outcome).collect())
    }

    /// Whether the sweeper could delete the object before its row is visible. The row of an open upload
    /// prevents that; a small file has none.
    fn is_too_late(&self, item: &PendingCommit, now: Timestamp) -> bool {
        item.lease.is_none() && item.object_age(now) > self.object_age_max
    }

    fn too_late_error(&self, item: &PendingCommit, now: Timestamp) -> Error {
        UploadError::CommitTooLate { age: item.object_age(now), age_max: self.object_age_max }.into()
    }

    async fn write_rows(
        &self,
        tx: &mut TenantTx,
        items: &[&PendingCommit],
    ) -> Result<(Vec<ItemOutcome>, TransactionId), BatchError> {
        let finished: Vec<_> = items.iter().map(|item| item.to_finished_upload()).collect();
        let outcome = commit::commit_uploads(tx, &finished, self.idempotency_hours).await?;
        let (outcomes, quota) = match outcome.outcomes {
            Ok(committed) => committed,
            Err(exceeded) => {
                let needed_bytes = items.iter().map(|item| item.needed_bytes()).sum();
                return Err(BatchError::Refused(commit_error(tx, exceeded, needed_bytes).await?));
            }
        };
        // Written after the quota's row, against the usual order: only now is it known which uploads are
        // committed, and inserting a new job waits for no lock.
        for (item, outcome) in items.iter().zip(&outcomes) {
            if let (UploadCommitOutcome::Committed(_, file_record), Some(verification)) =
                (outcome, &item.verification)
            {
                let version = file_record.as_ref().map_or(FIRST_VERSION, |file_record| file_record.version);
                let job = verification.to_job(item.destination.file_id(), version, item.uploader.clone());
                jobs::insert(tx, verification.id, &job, None).await?;
            }
        }
        let outcomes: Result<Vec<ItemOutcome>, Error> =
            items.iter().zip(outcomes).map(|(item, outcome)| item.to_outcome(outcome, quota)).collect();
        Ok((outcomes.map_err(BatchError::Refused)?, outcome.transaction))
    }
}
