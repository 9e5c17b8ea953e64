//! The commit of finished uploads. It is one call of a database function, because round trips dominated the cost
//! of small files. `commit_rows.rs` has the columns of its argument.

use diesel::{
    QueryableByName,
    sql_types::{Array, Bool, Integer, Jsonb, Nullable, Text, Timestamptz},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{
    DbError, DbErrorKind, TenantTx, TransactionId,
    blobs::Blob,
    commit_rows::FinishedUploadRow,
    committed_file::{CommitTimes, FileRecord},
    finished_upload::{FinishedDestination, FinishedUpload},
    idempotency_keys::{Method, StoredResponse},
    sql::{JsonEntries, statement},
};
use crate::domain::{
    clock::Timestamp, digest::Digest, event_position::EventPosition, file::FileState, ids::RequestId,
    quota::QuotaFigures,
};

const OPERATION: &str = "commit uploads";

/// The response to an upload, as stored under a request id.
#[derive(Debug, Deserialize)]
pub struct StoredUploadResponse<A> {
    /// The part that was known before the commit.
    pub response: A,
    /// The tenant's quota after the commit.
    pub quota: QuotaFigures,
    #[serde(flatten)]
    pub times: CommitTimes,
    /// The record of the file, if the upload was a new version of it.
    #[serde(default)]
    pub file_record: Option<Box<FileRecord>>,
}

/// The outcome of one upload of a batch.
#[derive(Debug)]
pub enum UploadCommitOutcome {
    /// It was committed as a file or a version. The record is present for versions.
    Committed(CommitTimes, Option<Box<FileRecord>>),
    /// Its request id already has a response.
    Replayed(StoredResponse),
    /// Another request with its request id is in progress.
    InProgress,
    /// Its lease was lost, because the upload was abandoned or taken over.
    Fenced,
    /// The file that it is a version of does not exist, or the uploader may no longer see it.
    FileNotFound,
    /// The file that it is a version of is in a state that does not accept versions.
    FileState(FileState),
    /// The uploader may no longer change the file that it is a version of.
    NotAllowed,
    /// The file that it is a version of has moved to a category that allows other types.
    CategoryChanged,
    /// The etag of the file differs from the one that the upload requires.
    EtagMismatch,
    /// The file has the maximum number of versions.
    TooManyVersions,
}

/// The outcome of a batch.
#[derive(Debug)]
pub struct BatchOutcome {
    /// The transaction, to query its status if the response to COMMIT is lost.
    pub transaction: TransactionId,
    /// The outcomes in the order of the uploads, and the quota after the batch. An error if the batch does not fit
    /// into a quota; the transaction must then be rolled back.
    pub outcomes: Result<(Vec<UploadCommitOutcome>, QuotaFigures), ExceededQuota>,
}

/// The quota that a batch exceeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExceededQuota {
    Tenant,
    /// That of the user with this id.
    User(String),
}

/// The values of a batch that exceeds the quota of a user.
#[derive(Deserialize)]
struct ExceededUser {
    exceeded_user: String,
}

#[derive(QueryableByName)]
struct OutcomeRow {
    #[diesel(sql_type = Text)]
    transaction_id: String,
    #[diesel(sql_type = Bool)]
    fits: bool,
    #[diesel(sql_type = Array<Text>)]
    outcomes: Vec<String>,
    #[diesel(sql_type = Timestamptz)]
    create_time: Timestamp,
    #[diesel(sql_type = Nullable<Array<Nullable<Timestamptz>>>)]
    deletion_times: Option<Vec<Option<Timestamp>>>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    quota_values: Option<Value>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    replayed: Option<JsonEntries>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    file_records: Option<JsonEntries>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    event_positions: Option<Value>,
}

#[derive(Deserialize)]
struct ReplayRow {
    method: i16,
    payload_sha256: Digest,
    response: Box<RawValue>,
}

/// Writes all rows of a batch of finished uploads. The transaction must then be committed, or rolled back if
/// the batch does not fit into the quota.
pub async fn commit_uploads<A: Serialize>(
    tx: &mut TenantTx,
    uploads: &[FinishedUpload<'_, A>],
    idempotency_hours: u32,
) -> Result<BatchOutcome, DbError> {
    let rows: Vec<FinishedUploadRow<'_, A>> = uploads.iter().map(FinishedUploadRow::from).collect();
    let items =
        serde_json::to_string(&rows).map_err(|error| DbError::new(DbErrorKind::Other, OPERATION, error))?;
    // A function of the database.
    let row: OutcomeRow = statement(OPERATION, "SELECT * FROM app.commit_uploads($1::text::jsonb, $2)")
        .bind::<Text, _>(items)
        .bind::<Integer, _>(i32::try_from(idempotency_hours).unwrap_or(i32::MAX))
        .one(tx.connection()?)
        .await?;
    let transaction = TransactionId::parse(OPERATION, &row.transaction_id)?;
    if !row.fits {
        let user = row.quota_values.and_then(|values| serde_json::from_value::<ExceededUser>(values).ok());
        let exceeded = user.map_or(ExceededQuota::Tenant, |user| ExceededQuota::User(user.exceeded_user));
        return Ok(BatchOutcome { transaction, outcomes: Err(exceeded) });
    }
    let quota = row.quota_values.clone().and_then(|values| serde_json::from_value(values).ok());
    let quota = quota.ok_or_else(|| DbError::corrupt(OPERATION, "quota"))?;
    let outcomes: Vec<UploadCommitOutcome> = uploads
        .iter()
        .enumerate()
        .map(|(index, upload)| row.outcome(index, upload))
        .collect::<Result<_, _>>()?;
    for outcome in &outcomes {
        if let UploadCommitOutcome::Committed(times, _) = outcome {
            tx.note_event(times.event);
        }
    }
    Ok(BatchOutcome { transaction, outcomes: Ok((outcomes, quota)) })
}

impl OutcomeRow {
    fn outcome<A>(
        &self,
        index: usize,
        upload: &FinishedUpload<'_, A>,
    ) -> Result<UploadCommitOutcome, DbError> {
        let request = upload.request.map(|request| request.id);
        match self.outcomes.get(index).map(String::as_str) {
            Some("committed") => {
                let deletion_time = self.deletion_times.as_ref().and_then(|times| *times.get(index)?);
                let event = self.event(upload.blob)?;
                let times = CommitTimes { create_time: self.create_time, deletion_time, event };
                let file_record = match upload.destination {
                    FinishedDestination::NewFile { .. } => None,
                    FinishedDestination::NewVersion { .. } => Some(Box::new(self.file_record(upload.blob)?)),
                };
                Ok(UploadCommitOutcome::Committed(times, file_record))
            }
            Some("replayed") => self.replayed_response(request).map(UploadCommitOutcome::Replayed),
            Some("in_progress") => Ok(UploadCommitOutcome::InProgress),
            Some("fenced") => Ok(UploadCommitOutcome::Fenced),
            Some("file_gone") => Ok(UploadCommitOutcome::FileNotFound),
            Some("file_deleted") => Ok(UploadCommitOutcome::FileState(FileState::Deleted)),
            Some("file_archived") => Ok(UploadCommitOutcome::FileState(FileState::Archived)),
            Some("not_allowed") => Ok(UploadCommitOutcome::NotAllowed),
            Some("category_changed") => Ok(UploadCommitOutcome::CategoryChanged),
            Some("too_many_versions") => Ok(UploadCommitOutcome::TooManyVersions),
            Some("etag_mismatch") => Ok(UploadCommitOutcome::EtagMismatch),
            _ => Err(DbError::corrupt(OPERATION, "outcome")),
        }
    }

    fn file_record(&self, blob: &Blob) -> Result<FileRecord, DbError> {
        let record =
            self.file_records.as_ref().and_then(|records| records.get(&blob.id.as_uuid().to_string()));
        record
            .and_then(|record| FileRecord::read(record).ok())
            .ok_or_else(|| DbError::corrupt(OPERATION, "file record"))
    }

    fn event(&self, blob: &Blob) -> Result<EventPosition, DbError> {
        let position = self
            .event_positions
            .as_ref()
            .and_then(|positions| positions.get(blob.id.as_uuid().to_string())?.as_str()?.parse().ok());
        position.ok_or_else(|| DbError::corrupt(OPERATION, "event position"))
    }

    fn replayed_response(&self, request: Option<RequestId>) -> Result<StoredResponse, DbError> {
        let corrupt = |what: &str| DbError::corrupt(OPERATION, what);
        let request_id = request.ok_or_else(|| corrupt("response without a request id"))?;
        let stored =
            self.replayed.as_ref().and_then(|replayed| replayed.get(&request_id.as_uuid().to_string()));
        let stored = stored.ok_or_else(|| corrupt("missing response"))?;
        let before: ReplayRow = serde_json::from_str(stored.get()).map_err(|_| corrupt("response"))?;
        let method = Method::from_number(before.method).ok_or_else(|| corrupt("method"))?;
        // An unreadable response fails its own replay and not the batch.
        let response = serde_json::from_str(before.response.get()).unwrap_or_default();
        Ok(StoredResponse { request_id, method, payload: before.payload_sha256, response })
    }
}
