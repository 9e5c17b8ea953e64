//! The commit: bytes that are stored become a file that is visible.
//!
//! The rows, and their one order, which is also the order of locks, stand in the database's function `app.commit_uploads`:
//! one round trip instead of fourteen. Finished uploads of one tenant are committed together; when their sum finds no
//! room, or anything else refuses the batch, it is run again singly in the order of arrival, so that a neighbour never
//! fails for another.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{refusals::count_refusal, warnings::Warning};
use crate::{
    app::{Error, Limits, access::OWNER_OR_ADMIN, group::Batch, idempotency::replay},
    db::{
        Database, DbError, DbErrorKind, Outcome, TenantTx, TransactionId, Viewer,
        audit_entries::AuditEntry,
        blobs::{self, Blob},
        commit::{self, CommitTimes, FileFacts, Finished, StoredUpload, Verdict},
        idempotency_keys::{Method, StoredAnswer},
        jobs, quotas,
        uploads::UploadLease,
    },
    domain::{
        clock::{Clock, Timestamp},
        digest::Digest,
        event_position::EventPosition,
        file::File,
        ids::{BlobId, FileId, JobId, RequestId, TenantId},
        imported::Imported,
        quota::{QuotaFigures, QuotaState},
        violations::Violations,
    },
    jobs::Job,
    telemetry::Metrics,
};

/// A finished upload.
#[derive(Debug, Clone)]
pub(in crate::app) struct FinishedUpload {
    /// The file, with times that the commit will set.
    pub(super) file: File,
    /// Whether it is a further version of a file that there is.
    pub(super) is_version: bool,
    /// Whether the uploader may change files of others.
    pub(super) may_write_all: bool,
    /// The etag that the file of a version must have; empty for any.
    pub(super) if_etag: String,
    pub(super) change_description: String,
    pub(super) retention_days: Option<i32>,
    pub(super) readers: Vec<String>,
    pub(super) imported: Option<Imported>,
    pub(super) warnings: Vec<Warning>,
    pub(super) blob: Blob,
    /// When its bytes began to be stored.
    pub(super) store_time: Timestamp,
    /// The reservation to settle; a small file has none.
    pub(super) lease: Option<UploadLease>,
    /// The request id, and what it stands for.
    pub(super) request: Option<(RequestId, Digest)>,
    /// How it is verified once it is committed; where its bytes went by here, it is already.
    pub(super) verification: Option<Verification>,
    pub(super) audit: AuditEntry,
}

/// What a job will read and compare before anybody else reads it.
#[derive(Debug, Clone)]
pub(super) struct Verification {
    /// The job.
    pub(super) id: JobId,
    /// The digest that was declared, if one was.
    pub(super) sha256: Option<Digest>,
    /// What its first bytes were recognised as.
    pub(super) sniffed: Option<String>,
}

impl Verification {
    /// The job, for a version whose number the commit has given.
    fn job(&self, file: FileId, version: i32) -> Job {
        let Self { sha256, sniffed, .. } = self;
        Job::VerifyUpload { file, version, sha256: *sha256, sniffed: sniffed.clone() }
    }
}

/// What an upload answers, and what its request id answers again.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) file: File,
    pub(super) warnings: Vec<Warning>,
    pub(super) quota: QuotaState,
    /// Where its event stands.
    pub(super) event: EventPosition,
}

/// An answer before its commit, which sets the file's times and knows the quota.
#[derive(Debug, Serialize, Deserialize)]
struct UncommittedAnswer<'a> {
    file: Cow<'a, File>,
    warnings: Cow<'a, [Warning]>,
}

impl UncommittedAnswer<'_> {
    fn commit(self, times: CommitTimes, facts: Option<Box<FileFacts>>, quota: QuotaFigures) -> Answer {
        let CommitTimes { create_time, deletion_time, event } = times;
        let file = File { create_time, update_time: create_time, deletion_time, ..self.file.into_owned() };
        let file = match facts {
            Some(facts) => facts.apply(file),
            None => file,
        };
        Answer { file, warnings: self.warnings.into_owned(), quota: quota.state(), event }
    }
}

/// The answer that is stored under the request id of an upload, if it was given to the same payload.
pub(super) fn replay_upload(stored: StoredAnswer, payload: Digest) -> Result<Answer, Error> {
    let stored: StoredUpload<UncommittedAnswer<'static>> = replay(stored, Method::UploadFile, payload)?;
    Ok(stored.answer.commit(stored.times, stored.facts, stored.quota))
}

/// The answer that was given to an upload, whatever was sent to it.
pub(super) fn answer_of(stored: StoredAnswer) -> Result<Answer, Error> {
    let payload = stored.payload;
    replay_upload(stored, payload)
}

impl FinishedUpload {
    fn row(&self) -> Finished<'_, UncommittedAnswer<'_>> {
        Finished {
            file: &self.file,
            is_version: self.is_version,
            may_write_all: self.may_write_all,
            if_etag: &self.if_etag,
            imported: self.imported.as_ref(),
            change_description: &self.change_description,
            retention_days: self.retention_days,
            readers: &self.readers,
            blob: &self.blob,
            audit: &self.audit,
            lease: self.lease,
            request: self.request,
            answer: self.answer(),
        }
    }

    fn answer(&self) -> UncommittedAnswer<'_> {
        UncommittedAnswer { file: Cow::Borrowed(&self.file), warnings: Cow::Borrowed(&self.warnings) }
    }

    /// How long ago its bytes began to be stored.
    fn age(&self, now: Timestamp) -> Duration {
        (now - self.store_time).to_std().unwrap_or_default()
    }

    /// What it asks of the quota: a reservation covers its own upload.
    fn needed_bytes(&self) -> i64 {
        match self.lease {
            Some(_) => 0,
            None => i64::try_from(self.blob.size_bytes).unwrap_or(i64::MAX),
        }
    }

    fn outcome(&self, verdict: Verdict, quota: QuotaFigures) -> ItemOutcome {
        match verdict {
            Verdict::Committed(times, facts) => {
                Ok(Committed { answer: self.answer().commit(times, facts, quota), is_replay: false })
            }
            Verdict::Answered(stored) => {
                let (_, payload) = self.request.ok_or_else(|| Error::internal("an answer without an id"))?;
                Ok(Committed { answer: replay_upload(stored, payload)?, is_replay: true })
            }
            Verdict::InProgress => Err(Error::RequestInProgress),
            Verdict::Fenced => Err(Error::UploadFenced),
            Verdict::FileGone => Err(Error::NotFound("file")),
            Verdict::FileState(state) => Err(Error::of_state(state)),
            Verdict::NotAllowed => Err(Error::NotAllowed(OWNER_OR_ADMIN)),
            Verdict::EtagMismatch => Err(Error::EtagMismatch),
            Verdict::Recategorized => Err(Violations::one(
                "spec.file_id",
                "was moved to a category with other types since this upload began; upload the version again",
            )
            .into()),
        }
    }
}

/// A file that is visible now, or was already.
#[derive(Debug, Clone)]
pub(in crate::app) struct Committed {
    pub(super) answer: Answer,
    /// Another attempt with the same request id was first: this one's bytes are surplus.
    pub(super) is_replay: bool,
}

/// Commits finished uploads.
pub(in crate::app) struct Commits {
    db: Database,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    idempotency_hours: u32,
    /// How old an object without a row may be when its row is made.
    age_max: Duration,
}

type ItemOutcome = Result<Committed, Error>;

/// Why a whole transaction did not happen.
enum BatchError {
    /// What it asks for does not fit, or a row was refused: others must not suffer for it.
    Refused(Error),
    /// The database is away: trying one by one would only be slower.
    Away(DbError),
    /// The commit was sent, and nobody can say what became of it.
    Unknown(DbError),
}

impl From<DbError> for BatchError {
    fn from(error: DbError) -> Self {
        match error.kind {
            DbErrorKind::Unavailable => Self::Away(error),
            _ => Self::Refused(error.into()),
        }
    }
}

impl Commits {
    pub(in crate::app) fn new(
        db: Database,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        limits: &Limits,
    ) -> Self {
        let idempotency_hours = u32::try_from(limits.retention.idempotency_hours).unwrap_or(u32::MAX);
        // The sweeper looks at objects that are older than the grace period. The other half of it is for the transaction,
        // which ends by its own time limits, and for clocks that differ.
        let age_max = limits.sweeping.grace() / 2;
        Self { db, clock, metrics, idempotency_hours, age_max }
    }
}

#[async_trait]
impl Batch for Commits {
    type Item = FinishedUpload;
    type Outcome = ItemOutcome;

    async fn run(&self, tenant: TenantId, items: Vec<FinishedUpload>) -> Vec<ItemOutcome> {
        let outcomes = if has_dependent_items(&items) {
            self.commit_singly(tenant, &items).await
        } else {
            match self.commit(tenant, &items).await {
                Err(BatchError::Refused(_)) if items.len() > 1 => self.commit_singly(tenant, &items).await,
                Ok(outcomes) => outcomes,
                Err(error) => same_for_all(items.len(), error),
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
    fn into_error(self) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Away(error) => error.into(),
            Self::Unknown(error) => Error::OutcomeUnknown(error.into()),
        }
    }
}

/// Whether a version with an `if_etag` shares its file with another item. A batch checks all etags before it writes, so
/// such items are committed one by one.
fn has_dependent_items(items: &[FinishedUpload]) -> bool {
    let of_file = |id| items.iter().filter(|item| item.is_version && item.file.id == id).count();
    items.iter().any(|item| !item.if_etag.is_empty() && of_file(item.file.id) > 1)
}

fn same_for_all(count: usize, error: BatchError) -> Vec<ItemOutcome> {
    match error {
        BatchError::Refused(error) => vec![Err(error)],
        BatchError::Away(error) => (0..count).map(|_| Err(error.clone().into())).collect(),
        BatchError::Unknown(error) => {
            (0..count).map(|_| Err(Error::OutcomeUnknown(error.clone().into()))).collect()
        }
    }
}

impl Commits {
    /// Commits items one by one, in the order of their arrival. When the database goes away in between, the rest is not
    /// tried any more.
    async fn commit_singly(&self, tenant: TenantId, items: &[FinishedUpload]) -> Vec<ItemOutcome> {
        let mut outcomes = Vec::with_capacity(items.len());
        for item in items {
            match self.commit(tenant, std::slice::from_ref(item)).await {
                Ok(single) => outcomes.extend(single),
                Err(BatchError::Away(error)) => {
                    outcomes.resize_with(items.len(), || Err(error.clone().into()));
                    return outcomes;
                }
                Err(error) => outcomes.push(Err(error.into_error())),
            }
        }
        outcomes
    }

    /// Commits items in one transaction; answers one outcome per item, in order.
    async fn commit(
        &self,
        tenant: TenantId,
        items: &[FinishedUpload],
    ) -> Result<Vec<ItemOutcome>, BatchError> {
        let started = Instant::now();
        let mut tx = self.db.tenant_tx(tenant, &Viewer::system()).await?;
        // Asked with the connection in hand, because waiting for one counts too.
        let now = self.clock.now();
        let timely: Vec<_> = items.iter().filter(|item| !self.is_too_late(item, now)).collect();
        if timely.is_empty() {
            let refused = items.iter().map(|item| Err(self.too_late(item, now))).collect();
            return tx.finish(Ok(refused)).await;
        }
        let written = self.write(&mut tx, &timely).await;
        let (outcomes, transaction) = match written {
            Ok(written) => written,
            Err(error) => return tx.finish::<_, BatchError>(Err(error)).await,
        };
        if let Err(lost) = tx.commit().await {
            let is_new = |outcome: &ItemOutcome| matches!(outcome, Ok(Committed { is_replay: false, .. }));
            let proof = timely.iter().zip(&outcomes).find(|(_, outcome)| is_new(outcome));
            let proof = proof.map(|(item, _)| (tenant, item.blob.id));
            self.ask_for_outcome(&transaction, proof, lost).await?;
        }
        self.metrics.committed(timely.len() as u64, started.elapsed());
        let mut outcomes = outcomes.into_iter();
        let outcome = |item| match self.is_too_late(item, now) {
            true => Err(self.too_late(item, now)),
            false => outcomes.next().unwrap_or_else(|| Err(Error::internal("an outcome is missing"))),
        };
        Ok(items.iter().map(outcome).collect())
    }

    /// Whether the sweeper might take it away before it is visible. An upload's own row keeps the sweeper off; a small
    /// file has none.
    fn is_too_late(&self, item: &FinishedUpload, now: Timestamp) -> bool {
        item.lease.is_none() && item.age(now) > self.age_max
    }

    fn too_late(&self, item: &FinishedUpload, now: Timestamp) -> Error {
        Error::CommitTooLate { age: item.age(now), age_max: self.age_max }
    }

    async fn write(
        &self,
        tx: &mut TenantTx,
        items: &[&FinishedUpload],
    ) -> Result<(Vec<ItemOutcome>, TransactionId), BatchError> {
        let finished: Vec<_> = items.iter().map(|item| item.row()).collect();
        let outcome = commit::commit_uploads(tx, &finished, self.idempotency_hours).await?;
        let Some((verdicts, quota)) = outcome.verdicts else {
            let quota = quotas::get(tx).await?;
            let needed = items.iter().map(|item| item.needed_bytes()).sum();
            return Err(BatchError::Refused(Error::over_quota(&quota, needed)));
        };
        // Behind the quota's row, against the order: it is known only here what is committed, and a job that is new waits for
        // nobody.
        for (item, verdict) in items.iter().zip(&verdicts) {
            if let (Verdict::Committed(_, facts), Some(verification)) = (verdict, &item.verification) {
                let version = facts.as_ref().map_or(item.file.version, |facts| facts.version);
                let job = verification.job(item.file.id, version);
                jobs::insert(tx, verification.id, &job, None).await?;
            }
        }
        let outcomes =
            items.iter().zip(verdicts).map(|(item, verdict)| item.outcome(verdict, quota)).collect();
        Ok((outcomes, outcome.transaction))
    }

    /// The answer to COMMIT was lost: what became of it is not failure but a question. `proof` is a blob that the
    /// transaction makes, if it makes one: of a file that gets a version there are rows before.
    async fn ask_for_outcome(
        &self,
        transaction: &TransactionId,
        proof: Option<(TenantId, BlobId)>,
        lost: DbError,
    ) -> Result<(), BatchError> {
        const ATTEMPTS: u32 = 8;
        // Only a constraint's or a serialisation's word says for sure that nothing happened.
        if matches!(lost.kind, DbErrorKind::Constraint(_) | DbErrorKind::Contended) {
            return Err(BatchError::Refused(lost.into()));
        }
        for attempt in 0..ATTEMPTS {
            match self.outcome(transaction, proof).await {
                Ok(Outcome::Committed) => return Ok(()),
                Ok(Outcome::Aborted) => return Err(BatchError::Away(lost)),
                Ok(Outcome::InProgress) => tracing::info!(attempt, "a lost commit is still in progress"),
                Err(error) => tracing::info!(attempt, %error, "ask for the outcome of a lost commit"),
            }
            tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
        }
        Err(BatchError::Unknown(lost))
    }

    /// What became of a transaction. A server that crashed may give the number of one that it lost to another, so that it
    /// has committed is only believed with what it wrote.
    async fn outcome(
        &self,
        transaction: &TransactionId,
        proof: Option<(TenantId, BlobId)>,
    ) -> Result<Outcome, DbError> {
        let mut tx = self.db.system_tx().await?;
        let outcome = tx.outcome(transaction).await?;
        let is_proven = match proof {
            Some((tenant, blob)) if outcome == Outcome::Committed => {
                blobs::exists(&mut tx, tenant, blob).await?
            }
            _ => true,
        };
        tx.commit().await?;
        Ok(if is_proven { outcome } else { Outcome::Aborted })
    }
}
