//! The commit: bytes that are stored become a file that is visible.
//!
//! One order, everywhere, which is also the order of locks: the upload's row, idempotency key, blob, file, version, tags,
//! attachments, readers, audit, event, usage counter, and the quota row last. (The lock on a request id is taken first; the
//! answer stored under it tells the quota, and is written behind it.) Finished uploads of one tenant are committed
//! together; when their sum finds no room, or anything else refuses the batch, it is run again singly in the order of
//! arrival, so that a neighbour never fails for another.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::warnings::Warning;
use crate::{
    app::{Error, group::Batch, idempotency::replay},
    db::{
        Database, DbError, DbErrorKind, Outcome, TenantTx, TransactionId, Viewer,
        attachments::{self, Attachment},
        audit_entries::{self, AuditEntry},
        blobs::{self, Blob},
        events::{self, Event, EventKind},
        file_readers, file_tags, files,
        idempotency_keys::{self, Method, StoredAnswer},
        quotas::{self, QuotaDelta},
        uploads::{self, UploadLease, UploadState},
        usage_counters::{self, UsageGain},
        versions,
    },
    domain::{
        digest::Digest,
        file::File,
        ids::{FileId, RequestId, TenantId, UploadId},
        quota::{Quota, QuotaState},
    },
    telemetry::{Metrics, metrics::QuotaLimit},
};

/// A finished upload.
#[derive(Debug, Clone)]
pub(in crate::app) struct FinishedUpload {
    /// The file, with times that the commit will set.
    pub(super) file: File,
    pub(super) retention_days: Option<i32>,
    pub(super) readers: Vec<String>,
    pub(super) warnings: Vec<Warning>,
    pub(super) blob: Blob,
    /// The reservation to settle; a small file has none.
    pub(super) lease: Option<UploadLease>,
    /// The request id, and what it stands for.
    pub(super) request: Option<(RequestId, Digest)>,
    pub(super) audit: AuditEntry,
}

/// What an upload answers, and what its request id answers again.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Answer {
    pub(super) file: File,
    pub(super) warnings: Vec<Warning>,
    pub(super) quota: QuotaState,
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
    metrics: Metrics,
    idempotency_hours: u32,
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
    pub(in crate::app) fn new(db: Database, metrics: Metrics, idempotency_hours: u64) -> Self {
        Self { db, metrics, idempotency_hours: u32::try_from(idempotency_hours).unwrap_or(u32::MAX) }
    }
}

#[async_trait]
impl Batch for Commits {
    type Item = FinishedUpload;
    type Outcome = ItemOutcome;

    async fn run(&self, tenant: TenantId, items: Vec<FinishedUpload>) -> Vec<ItemOutcome> {
        let outcomes = match self.commit(tenant, &items).await {
            Err(BatchError::Refused(_)) if items.len() > 1 => self.commit_singly(tenant, &items).await,
            Ok(outcomes) => outcomes,
            Err(error) => same_for_all(items.len(), error),
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
        let written = self.write(&mut tx, items).await;
        let (outcomes, transaction) = match written {
            Ok(written) => written,
            Err(error) => return tx.finish::<_, BatchError>(Err(error)).await,
        };
        if let Err(lost) = tx.commit().await {
            self.ask_for_outcome(&transaction, lost).await?;
        }
        self.metrics.committed(items.len() as u64, started.elapsed());
        Ok(outcomes)
    }

    async fn write(
        &self,
        tx: &mut TenantTx,
        items: &[FinishedUpload],
    ) -> Result<(Vec<ItemOutcome>, TransactionId), BatchError> {
        let transaction = tx.id().await?;
        let mut settled = self.answered(tx, items).await?;
        let reserved = end_uploads(tx, items, &mut settled).await?;
        let fresh: Vec<&FinishedUpload> =
            items.iter().filter(|item| !settled.contains_key(&item.file.id)).collect();
        let files = insert_rows(tx, &fresh).await?;
        let quota = charge(tx, &fresh, &reserved).await?.state();
        let mut answers: HashMap<FileId, Answer> = fresh
            .iter()
            .zip(files)
            .map(|(item, file)| (file.id, Answer { file, warnings: item.warnings.clone(), quota }))
            .collect();
        idempotency_keys::insert(tx, &stored_answers(&fresh, &answers)?).await?;
        let outcomes = items
            .iter()
            .map(|item| match settled.remove(&item.file.id) {
                Some(Ok(answer)) => Ok(Committed { answer, is_replay: true }),
                Some(Err(error)) => Err(error),
                None => answers
                    .remove(&item.file.id)
                    .map(|answer| Committed { answer, is_replay: false })
                    .ok_or_else(|| Error::internal("inserted file is missing")),
            })
            .collect();
        Ok((outcomes, transaction))
    }

    /// Finds items whose request id was answered already, or is being worked on by someone else.
    async fn answered(
        &self,
        tx: &mut TenantTx,
        items: &[FinishedUpload],
    ) -> Result<HashMap<FileId, Result<Answer, Error>>, BatchError> {
        let mut settled = HashMap::new();
        let ids: Vec<RequestId> = items.iter().filter_map(|item| item.request.map(|(id, _)| id)).collect();
        if ids.is_empty() {
            return Ok(settled);
        }
        let locked: HashSet<RequestId> = idempotency_keys::lock(tx, &ids).await?.into_iter().collect();
        let found = idempotency_keys::find(tx, &ids, self.idempotency_hours).await?;
        let found: HashMap<RequestId, StoredAnswer> =
            found.into_iter().map(|stored| (stored.request_id, stored)).collect();
        let mut first_here = HashSet::new();
        for item in items {
            let Some((id, payload)) = item.request else { continue };
            if let Some(stored) = found.get(&id) {
                settled.insert(item.file.id, replay(stored.clone(), Method::UploadFile, payload));
            } else if !locked.contains(&id) || !first_here.insert(id) {
                settled.insert(item.file.id, Err(Error::RequestInProgress));
            }
        }
        Ok(settled)
    }

    /// The answer to COMMIT was lost: what became of it is not failure but a question.
    async fn ask_for_outcome(&self, transaction: &TransactionId, lost: DbError) -> Result<(), BatchError> {
        const ATTEMPTS: u32 = 8;
        // Only a constraint's or a serialisation's word says for sure that nothing happened.
        if matches!(lost.kind, DbErrorKind::Constraint(_) | DbErrorKind::Contended) {
            return Err(BatchError::Refused(lost.into()));
        }
        for attempt in 0..ATTEMPTS {
            let asked = async { self.db.system_tx().await?.outcome(transaction).await }.await;
            match asked {
                Ok(Outcome::Committed) => return Ok(()),
                Ok(Outcome::Aborted) => return Err(BatchError::Away(lost)),
                Ok(Outcome::InProgress) => tracing::info!(attempt, "a lost commit is still in progress"),
                Err(error) => tracing::info!(attempt, %error, "ask for the outcome of a lost commit"),
            }
            tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
        }
        Err(BatchError::Unknown(lost))
    }
}

/// Ends the uploads behind the items; those that no longer hold their lease must not become files.
async fn end_uploads(
    tx: &mut TenantTx,
    items: &[FinishedUpload],
    settled: &mut HashMap<FileId, Result<Answer, Error>>,
) -> Result<HashMap<UploadId, i64>, BatchError> {
    let fresh = items.iter().filter(|item| !settled.contains_key(&item.file.id));
    let leases: Vec<UploadLease> = fresh.filter_map(|item| item.lease).collect();
    let reserved: HashMap<UploadId, i64> =
        uploads::end(tx, &leases, UploadState::Committed).await?.into_iter().collect();
    for item in items {
        if item.lease.is_some_and(|lease| leases.contains(&lease) && !reserved.contains_key(&lease.id)) {
            settled.insert(item.file.id, Err(Error::UploadFenced));
        }
    }
    Ok(reserved)
}

/// Everything but the charge: what makes the files, and what tells of them. Answers the files with their times, in order.
async fn insert_rows(tx: &mut TenantTx, items: &[&FinishedUpload]) -> Result<Vec<File>, BatchError> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<&File> = items.iter().map(|item| &item.file).collect();
    let stored: Vec<&Blob> = items.iter().map(|item| &item.blob).collect();
    blobs::insert(tx, &stored).await?;
    let retention: Vec<Option<i32>> = items.iter().map(|item| item.retention_days).collect();
    let created = files::insert(tx, &rows, &retention).await?;
    versions::insert(tx, &rows, &stored).await?;
    file_tags::insert(tx, &pairs(items, |item| &item.file.tags)).await?;
    attachments::insert(tx, &attached(items)).await?;
    let readers: Vec<(&File, String)> = items
        .iter()
        .flat_map(|item| item.readers.iter().map(|reader| (&item.file, reader.clone())))
        .collect();
    file_readers::insert(tx, &readers).await?;

    let times: HashMap<FileId, files::CreatedFile> =
        created.into_iter().map(|times| (times.id, times)).collect();
    let files = items
        .iter()
        .map(|item| {
            let times =
                times.get(&item.file.id).ok_or_else(|| Error::internal("inserted file is missing"))?;
            Ok(File {
                create_time: times.create_time,
                update_time: times.create_time,
                deletion_time: times.deletion_time,
                ..item.file.clone()
            })
        })
        .collect::<Result<Vec<File>, Error>>()
        .map_err(BatchError::Refused)?;

    let entries: Vec<AuditEntry> = items.iter().map(|item| item.audit.clone()).collect();
    audit_entries::insert(tx, &entries).await?;
    let events: Vec<Event> = items
        .iter()
        .map(|item| Event::of(EventKind::FileCreated, &item.file, &item.file.created_by))
        .collect();
    events::insert(tx, &events).await?;
    Ok(files)
}

fn pairs(items: &[&FinishedUpload], pick: fn(&FinishedUpload) -> &Vec<String>) -> Vec<(FileId, String)> {
    items.iter().flat_map(|item| pick(item).iter().map(|text| (item.file.id, text.clone()))).collect()
}

fn attached(items: &[&FinishedUpload]) -> Vec<Attachment> {
    items
        .iter()
        .flat_map(|item| {
            item.file.attachments.iter().map(|entity| Attachment {
                file: item.file.id,
                entity: entity.clone(),
                created_by: item.file.created_by.clone(),
            })
        })
        .collect()
}

fn stored_answers(
    items: &[&FinishedUpload],
    answers: &HashMap<FileId, Answer>,
) -> Result<Vec<StoredAnswer>, BatchError> {
    items
        .iter()
        .filter_map(|item| Some((item.request?, answers.get(&item.file.id)?)))
        .map(|((request_id, payload), answer)| {
            let answer =
                serde_json::to_value(answer).map_err(|error| BatchError::Refused(Error::internal(error)))?;
            Ok(StoredAnswer { request_id, method: Method::UploadFile, payload, answer })
        })
        .collect()
}

/// Counts and charges, last of all: this row is the one that every commit of the tenant waits for.
async fn charge(
    tx: &mut TenantTx,
    items: &[&FinishedUpload],
    reserved: &HashMap<UploadId, i64>,
) -> Result<Quota, BatchError> {
    if items.is_empty() {
        return Ok(quotas::get(tx).await?);
    }
    let mut gain = UsageGain::default();
    let mut delta = QuotaDelta::default();
    for item in items {
        let size = i64::try_from(item.blob.size_bytes).unwrap_or(i64::MAX);
        gain.count(&item.file.category, item.file.media_kind, size);
        delta.used_bytes += size;
        delta.file_count += 1;
        if let Some(bytes) = item.lease.and_then(|lease| reserved.get(&lease.id)) {
            delta.reserved_bytes -= bytes;
            delta.reserved_file_count -= 1;
        }
    }
    usage_counters::add(tx, &gain).await?;
    match quotas::apply(tx, delta).await? {
        Some(quota) => Ok(quota),
        None => {
            let quota = quotas::get(tx).await?;
            Err(BatchError::Refused(Error::over_quota(&quota, delta.used_bytes + delta.reserved_bytes)))
        }
    }
}

/// Counts what was refused for lack of room.
pub(super) fn count_refusal(metrics: &Metrics, error: &Error) {
    match error {
        Error::QuotaBytes { .. } => metrics.quota_refused(QuotaLimit::Bytes),
        Error::QuotaFiles { .. } => metrics.quota_refused(QuotaLimit::Files),
        Error::FileTooLarge { .. } => metrics.quota_refused(QuotaLimit::FileSize),
        _ => {}
    }
}
