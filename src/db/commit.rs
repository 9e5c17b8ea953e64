//! The commit of finished uploads, and the read that precedes an upload. Each is one call of a database
//! function, because round trips dominated the cost of small files.

use diesel::{
    QueryableByName,
    sql_types::{
        Array, Binary, Bool, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Database, DbError, DbErrorKind, TenantTx, TransactionId, Viewer,
    audit_entries::AuditEntry,
    blobs::Blob,
    committed_file::{CommitTimes, FileRecord},
    events::EventKind,
    idempotency_keys::{Method, RequestKey, StoredResponse},
    quotas::QuotaRow,
    sql::{JsonEntries, statement},
    tenant_tx::{begin_with, commit},
    uploads::UploadLease,
};
use crate::domain::{
    clock::Timestamp,
    digest::Digest,
    event_position::EventPosition,
    file::{EntityRef, FIRST_VERSION, FileState, VersionContent},
    ids::{FileId, RequestId, TenantId},
    quota::{Quota, QuotaFigures},
    upload_destination::{DestinationKind, NewFile, NewVersion},
};

const OPERATION: &str = "commit uploads";

/// A finished upload that is ready to be committed as a file or a version.
#[derive(Debug)]
pub struct FinishedUpload<'a, A> {
    pub destination: &'a FinishedDestination,
    /// The content. Its size and digest are those of the blob.
    pub content: &'a VersionContent,
    /// The id of the uploader.
    pub created_by: &'a str,
    /// The permissions of the uploader. The commit checks again that the uploader may see and change the file
    /// that gets a version.
    pub uploader: &'a Viewer,
    /// The description of the change in this version.
    pub change_description: &'a str,
    pub blob: &'a Blob,
    /// The audit entry of the upload. The commit adds the file and the version.
    pub audit: &'a AuditEntry,
    /// The lease of the upload's reservation, if it has one. The commit converts the reservation into usage.
    pub lease: Option<UploadLease>,
    /// The id and the payload of the request, if the response is stored under a request id.
    pub request: Option<RequestKey>,
    /// The response, without the parts that the commit adds. Stored under the request id as a
    /// [`StoredUploadResponse`].
    pub response: A,
}

/// The file or version that a finished upload becomes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FinishedDestination {
    /// A new file.
    NewFile {
        id: FileId,
        owner_id: String,
        /// The record of the file. The commit sets its times.
        record: Box<NewFile>,
    },
    /// A new version of an existing file.
    NewVersion {
        version: NewVersion,
        /// The category of the file when its content was checked.
        category: String,
        /// Whether the uploader may change files that other users own.
        may_write_all: bool,
        /// The maximum number of versions of a file. Not part of stored responses.
        #[serde(skip, default)]
        version_count_max: u32,
    },
}

impl FinishedDestination {
    /// Returns the id of the file.
    pub fn file_id(&self) -> FileId {
        match self {
            Self::NewFile { id, .. } => *id,
            Self::NewVersion { version, .. } => version.file,
        }
    }
}

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
    /// The outcomes in the order of the uploads, and the quota after the batch. `None` if the batch does not
    /// fit into the quota; the transaction must then be rolled back.
    pub outcomes: Option<(Vec<UploadCommitOutcome>, QuotaFigures)>,
}

/// The columns of `app.finished_upload`.
#[derive(Serialize)]
struct FinishedUploadRow<'a, A> {
    #[serde(flatten)]
    destination: DestinationColumns<'a>,
    created_by: &'a str,
    audience_min: i16,
    principals: &'a [String],
    change_description: &'a str,
    content_state: i16,
    scan_status: i16,
    mime_type: &'a str,
    declared_mime_type: &'a str,
    media_kind: i16,
    blob_id: Uuid,
    provider: &'a str,
    storage_key: &'a str,
    size_bytes: i64,
    sha256: Option<String>,
    crc64nvme: Option<String>,
    actor_kind: i16,
    actor_id: &'a str,
    audit_action: i16,
    audit_call_id: &'a str,
    audit_address: &'a str,
    audit_details: &'a Value,
    lease_id: Option<Uuid>,
    lease_epoch: Option<i32>,
    request_id: Option<Uuid>,
    method: i16,
    payload_sha256: Option<String>,
    response: &'a A,
}

/// The columns that depend on the destination. Those of the other destination are null.
#[derive(Serialize)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant, reason = "most uploads are new files, and a box would allocate for each")]
enum DestinationColumns<'a> {
    NewFile {
        is_version: bool,
        event_kind: i16,
        file_id: Uuid,
        version: i32,
        owner_id: &'a str,
        file_create_time: Option<Timestamp>,
        import_source: Option<&'a str>,
        import_sha256: Option<String>,
        import_legacy_id: Option<&'a str>,
        name: &'a str,
        category: &'a str,
        title: &'a str,
        description: &'a str,
        metadata: &'a serde_json::Map<String, Value>,
        visibility: i16,
        expire_time: Option<Timestamp>,
        retain_until_time: Option<Timestamp>,
        retention_days: Option<i32>,
        tags: &'a [String],
        attachments: &'a [EntityRef],
        readers: &'a [String],
    },
    /// The commit assigns the version number, and reads owner, visibility and readers from the file.
    NewVersion {
        is_version: bool,
        event_kind: i16,
        file_id: Uuid,
        category: &'a str,
        may_write_all: bool,
        if_etag: &'a str,
        version_count_max: u32,
    },
}

impl<'a> From<&'a FinishedDestination> for DestinationColumns<'a> {
    fn from(destination: &'a FinishedDestination) -> Self {
        match destination {
            FinishedDestination::NewFile { id, owner_id, record } => {
                let import_origin = record.import_origin.as_ref();
                Self::NewFile {
                    is_version: DestinationKind::NewFile.is_version(),
                    event_kind: EventKind::FileCreated.number(),
                    file_id: id.as_uuid(),
                    version: FIRST_VERSION,
                    owner_id,
                    file_create_time: import_origin.and_then(|origin| origin.create_time),
                    import_source: import_origin.map(|origin| origin.source.as_str()),
                    import_sha256: import_origin.map(|origin| bytea(&origin.source_sha256)),
                    import_legacy_id: import_origin.map(|origin| origin.legacy_id.as_str()),
                    name: &record.name,
                    category: &record.category,
                    title: &record.title,
                    description: &record.description,
                    metadata: &record.metadata,
                    visibility: record.visibility.number(),
                    expire_time: record.expire_time,
                    retain_until_time: record.retain_until_time,
                    retention_days: record.retention_days.and_then(|days| i32::try_from(days).ok()),
                    tags: &record.tags,
                    attachments: &record.attachments,
                    readers: &record.readers,
                }
            }
            FinishedDestination::NewVersion { version, category, may_write_all, version_count_max } => {
                Self::NewVersion {
                    is_version: DestinationKind::NewVersion.is_version(),
                    event_kind: EventKind::FileVersionCreated.number(),
                    file_id: version.file.as_uuid(),
                    category,
                    may_write_all: *may_write_all,
                    if_etag: &version.if_etag,
                    version_count_max: *version_count_max,
                }
            }
        }
    }
}

impl<'a, A> From<&'a FinishedUpload<'a, A>> for FinishedUploadRow<'a, A> {
    fn from(finished: &'a FinishedUpload<'a, A>) -> Self {
        let FinishedUpload { content, blob, audit, lease, request, .. } = finished;
        Self {
            destination: finished.destination.into(),
            created_by: finished.created_by,
            audience_min: finished.uploader.audience_min(),
            principals: finished.uploader.principals(),
            change_description: finished.change_description,
            content_state: content.content_state.number(),
            scan_status: content.scan_status.number(),
            mime_type: &content.mime_type,
            declared_mime_type: &content.declared_mime_type,
            media_kind: content.media_kind.number(),
            blob_id: blob.id.as_uuid(),
            provider: &blob.provider,
            storage_key: blob.key.as_str(),
            size_bytes: i64::try_from(blob.size_bytes).unwrap_or(i64::MAX),
            sha256: blob.hashes.map(|hashes| bytea(&hashes.sha256)),
            crc64nvme: blob.hashes.map(|hashes| bytea(&hashes.crc64nvme)),
            actor_kind: audit.actor.kind.number(),
            actor_id: &audit.actor.id,
            audit_action: audit.action.number(),
            audit_call_id: &audit.origin.call_id,
            audit_address: &audit.origin.address,
            audit_details: &audit.details,
            lease_id: lease.map(|lease| lease.id.as_uuid()),
            lease_epoch: lease.map(|lease| lease.epoch),
            request_id: request.map(|request| request.id.as_uuid()),
            method: Method::UploadFile.number(),
            payload_sha256: request.map(|request| bytea(&request.payload)),
            response: &finished.response,
        }
    }
}

/// Formats bytes in PostgreSQL's hex input format.
fn bytea(hexadecimal: &impl std::fmt::Display) -> String {
    format!("\\x{hexadecimal}")
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
        return Ok(BatchOutcome { transaction, outcomes: None });
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
    Ok(BatchOutcome { transaction, outcomes: Some((outcomes, quota)) })
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

#[derive(QueryableByName)]
struct AdmissionRow {
    #[diesel(embed)]
    quota: QuotaRow,
    #[diesel(sql_type = Nullable<SmallInt>)]
    method: Option<Method>,
    #[diesel(sql_type = Nullable<Binary>)]
    payload_sha256: Option<Digest>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    response: Option<Value>,
}

/// The data needed to admit an upload before its bytes are received.
#[derive(Debug)]
pub struct AdmissionData {
    pub quota: Quota,
    /// The stored response under its request id, if there is one.
    pub response: Option<StoredResponse>,
}

impl Database {
    /// Reads the quota for an upload of this viewer, and the response stored under the request id within the last
    /// `idempotency_hours`.
    ///
    /// It takes one round trip. The timeout is therefore enforced here: one that is set inside the statement
    /// would take effect too late.
    pub async fn read_admission_data(
        &self,
        tenant: TenantId,
        viewer: &Viewer,
        request: Option<RequestId>,
        idempotency_hours: u32,
    ) -> Result<AdmissionData, DbError> {
        const OPERATION: &str = "read admission data";
        let mut connection = self.tenant_pool.acquire(viewer.holder(tenant)).await?;
        let keeps_statements = self.tenant_pool.setup().keeps_statements;
        if !keeps_statements {
            // A pooler may give a statement outside a transaction two connections: to prepare it and to execute
            // it.
            begin_with(&mut connection, "BEGIN").await?;
        }
        // A function of the database, which sets the tenant context itself.
        const TEXT: &str = "SELECT quota.*, admission.method, admission.payload_sha256, admission.response
             FROM app.admission_data($1, $2, $3, $4) AS admission, LATERAL (SELECT (admission.quota).*) AS quota";
        let read = statement(OPERATION, TEXT)
            .bind::<SqlUuid, _>(tenant)
            .bind::<Nullable<SqlUuid>, _>(request)
            .bind::<Integer, _>(i32::try_from(idempotency_hours).unwrap_or(i32::MAX))
            .bind::<Nullable<Text>, _>(self.now_override().map(|now| now.to_rfc3339()))
            .one(&mut connection);
        let row: AdmissionRow = match timeout(self.statement_timeout, read).await {
            Ok(row) => row?,
            Err(elapsed) => {
                // The response is still outstanding, so the connection must not return to the pool.
                connection.discard();
                return Err(DbError::new(DbErrorKind::TimedOut, OPERATION, elapsed));
            }
        };
        if !keeps_statements {
            commit(connection).await?;
        }
        let response = match (request, row.method, row.payload_sha256, row.response) {
            (Some(request_id), Some(method), Some(payload), Some(response)) => {
                Some(StoredResponse { request_id, method, payload, response })
            }
            _ => None,
        };
        Ok(AdmissionData { quota: row.quota.into(), response })
    }
}
