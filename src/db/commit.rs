//! The commit of finished uploads, and the read before them: each one call of a function in the database, because their
//! round trips were most of what a small file cost.

use diesel::{
    QueryableByName,
    sql_types::{
        Array, Binary, Bool, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use diesel_async::pooled_connection::deadpool::Object;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Database, DbError, DbErrorKind, TenantTx, TransactionId,
    audit_entries::AuditEntry,
    blobs::Blob,
    events::EventKind,
    idempotency_keys::{Method, StoredAnswer},
    quotas::{self, QuotaRow},
    statement::statement,
    uploads::UploadLease,
};
use crate::domain::{
    clock::Timestamp,
    digest::Digest,
    event_position::EventPosition,
    file::{EntityRef, File, FileState, LegalHold, Visibility},
    ids::{RequestId, TenantId},
    imported::Imported,
    quota::{Quota, QuotaFigures},
};

const OPERATION: &str = "commit uploads";

/// A finished upload, ready to become a file.
#[derive(Debug)]
pub struct Finished<'a, A> {
    /// The file; its times are set by the commit. Of a file that gets a version only the id and the content count.
    pub file: &'a File,
    /// Whether it is a further version of a file that there is, and not a file of its own.
    pub is_version: bool,
    /// Whether the uploader may change files of others.
    pub may_write_all: bool,
    /// The etag that the file of a version must have; empty for any.
    pub if_etag: &'a str,
    /// What is new in this version.
    pub change_description: &'a str,
    /// After how many days it is deleted by schedule.
    pub retention_days: Option<i32>,
    /// Principals that may read it besides its owner and its audience.
    pub readers: &'a [String],
    /// Where it comes from, if it is imported.
    pub imported: Option<&'a Imported>,
    /// The stored object.
    pub blob: &'a Blob,
    /// The audit entry of the upload.
    pub audit: &'a AuditEntry,
    /// The reservation that it settles, if it has one.
    pub lease: Option<UploadLease>,
    /// The request id, and what it stands for.
    pub request: Option<(RequestId, Digest)>,
    /// The answer but for what only the commit knows. It is stored under the request id as a [`StoredUpload`].
    pub answer: A,
}

/// What the commit knows of a file.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct CommitTimes {
    /// When it was created.
    pub create_time: Timestamp,
    /// When its retention ends.
    pub deletion_time: Option<Timestamp>,
    /// Where its event stands.
    #[serde(rename = "event_position")]
    pub event: EventPosition,
}

/// An answer as it is stored under a request id.
#[derive(Debug, Deserialize)]
pub struct StoredUpload<A> {
    /// What was known before the commit.
    pub answer: A,
    /// The tenant's quota after it.
    pub quota: QuotaFigures,
    /// The file's times.
    #[serde(flatten)]
    pub times: CommitTimes,
    /// What is known of the file that got a version.
    #[serde(default)]
    pub facts: Option<Box<FileFacts>>,
}

/// The record of a file that got a version, as it stood at that commit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the File of their names")]
pub struct FileFacts {
    pub version: i32,
    pub revision: i64,
    pub owner_id: String,
    pub created_by: String,
    pub name: String,
    pub original_name: String,
    pub category: String,
    pub title: String,
    pub description: String,
    pub metadata: serde_json::Map<String, Value>,
    visibility: i16,
    pub create_time: Timestamp,
    pub expire_time: Option<Timestamp>,
    pub deletion_time: Option<Timestamp>,
    pub retain_until_time: Option<Timestamp>,
    hold_time: Option<Timestamp>,
    hold_by: Option<String>,
    hold_reason: Option<String>,
    pub tags: Vec<String>,
    pub attachments: Vec<EntityRef>,
}

impl FileFacts {
    /// The file with the content and the times of its new version.
    pub fn apply(self, file: File) -> File {
        File {
            version: self.version,
            revision: self.revision,
            owner_id: self.owner_id,
            created_by: self.created_by,
            name: self.name,
            original_name: self.original_name,
            category: self.category,
            title: self.title,
            description: self.description,
            metadata: self.metadata,
            // The column's CHECK knows the same numbers.
            visibility: Visibility::from_number(self.visibility).unwrap_or(Visibility::Owner),
            create_time: self.create_time,
            expire_time: self.expire_time,
            deletion_time: self.deletion_time,
            retain_until_time: self.retain_until_time,
            hold: LegalHold::from_columns(self.hold_time, self.hold_by, self.hold_reason),
            tags: self.tags,
            attachments: self.attachments,
            ..file
        }
    }
}

/// What became of one upload.
#[derive(Debug)]
pub enum Verdict {
    /// It is a file now, or the version of one.
    Committed(CommitTimes, Option<Box<FileFacts>>),
    /// Its request id was answered before.
    Answered(StoredAnswer),
    /// Someone else is working on its request id.
    InProgress,
    /// Its lease was lost: somebody gave the upload up.
    Fenced,
    /// The file that it was a version for is gone.
    FileGone,
    /// The file that it was a version for is in this state now, which takes none.
    FileState(FileState),
    /// The uploader may not change the file any more that it was a version for.
    NotAllowed,
    /// The file that it was a version for is in a category now that takes other types.
    Recategorized,
    /// The file has another etag than the upload requires.
    EtagMismatch,
}

/// What became of a batch.
#[derive(Debug)]
pub struct CommitOutcome {
    /// The transaction, to ask about it when the answer of COMMIT is lost.
    pub transaction: TransactionId,
    /// One verdict an upload, in order, and the quota after them; `None` when the sum does not fit into the quota: then
    /// roll back.
    pub verdicts: Option<(Vec<Verdict>, QuotaFigures)>,
}

/// The columns of `app.finished_upload`.
#[derive(Serialize)]
struct FinishedRow<'a, A> {
    file_id: Uuid,
    owner_id: &'a str,
    file_create_time: Option<Timestamp>,
    import_source: Option<&'a str>,
    import_sha256: Option<String>,
    import_legacy_id: Option<&'a str>,
    created_by: &'a str,
    name: &'a str,
    category: &'a str,
    title: &'a str,
    description: &'a str,
    metadata: &'a serde_json::Map<String, Value>,
    visibility: i16,
    version: i32,
    is_version: bool,
    may_write_all: bool,
    if_etag: &'a str,
    change_description: &'a str,
    content_state: i16,
    scan_status: i16,
    mime_type: &'a str,
    declared_mime_type: &'a str,
    media_kind: i16,
    expire_time: Option<Timestamp>,
    retain_until_time: Option<Timestamp>,
    retention_days: Option<i32>,
    tags: &'a [String],
    attachments: &'a [EntityRef],
    readers: &'a [String],
    blob_id: Uuid,
    provider: &'a str,
    storage_key: &'a str,
    size_bytes: i64,
    sha256: String,
    crc64nvme: String,
    actor_kind: i16,
    actor_id: &'a str,
    audit_action: i16,
    audit_request_id: &'a str,
    audit_address: &'a str,
    audit_details: &'a Value,
    event_kind: i16,
    lease_id: Option<Uuid>,
    lease_epoch: Option<i32>,
    request_id: Option<Uuid>,
    method: i16,
    payload_sha256: Option<String>,
    answer: &'a A,
}

impl<'a, A> From<&'a Finished<'a, A>> for FinishedRow<'a, A> {
    fn from(finished: &'a Finished<'a, A>) -> Self {
        let Finished { file, blob, audit, lease, request, .. } = finished;
        Self {
            file_id: file.id.as_uuid(),
            owner_id: &file.owner_id,
            file_create_time: finished.imported.and_then(|imported| imported.create_time),
            import_source: finished.imported.map(|imported| imported.source.as_str()),
            import_sha256: finished.imported.map(|imported| bytea(&imported.source_sha256)),
            import_legacy_id: finished.imported.map(|imported| imported.legacy_id.as_str()),
            created_by: &file.created_by,
            name: &file.name,
            category: &file.category,
            title: &file.title,
            description: &file.description,
            metadata: &file.metadata,
            visibility: file.visibility.number(),
            version: file.version,
            is_version: finished.is_version,
            may_write_all: finished.may_write_all,
            if_etag: finished.if_etag,
            change_description: finished.change_description,
            content_state: file.content_state.number(),
            scan_status: file.scan_status.number(),
            mime_type: &file.mime_type,
            declared_mime_type: &file.declared_mime_type,
            media_kind: file.media_kind.number(),
            expire_time: file.expire_time,
            retain_until_time: file.retain_until_time,
            retention_days: finished.retention_days,
            tags: &file.tags,
            attachments: &file.attachments,
            readers: finished.readers,
            blob_id: blob.id.as_uuid(),
            provider: &blob.provider,
            storage_key: blob.key.as_str(),
            size_bytes: i64::try_from(blob.size_bytes).unwrap_or(i64::MAX),
            sha256: bytea(&blob.sha256),
            crc64nvme: bytea(&blob.crc64nvme),
            actor_kind: audit.actor.kind.number(),
            actor_id: &audit.actor.id,
            audit_action: audit.action.number(),
            audit_request_id: &audit.origin.request_id,
            audit_address: &audit.origin.address,
            audit_details: &audit.details,
            event_kind: match finished.is_version {
                true => EventKind::FileVersionCreated,
                false => EventKind::FileCreated,
            }
            .number(),
            lease_id: lease.map(|lease| lease.id.as_uuid()),
            lease_epoch: lease.map(|lease| lease.epoch),
            request_id: request.map(|(id, _)| id.as_uuid()),
            method: Method::UploadFile.number(),
            payload_sha256: request.map(|(_, payload)| bytea(&payload)),
            answer: &finished.answer,
        }
    }
}

/// How PostgreSQL reads bytes in a text.
fn bytea(hexadecimal: &impl std::fmt::Display) -> String {
    format!("\\x{hexadecimal}")
}

#[derive(QueryableByName)]
struct OutcomeRow {
    #[diesel(sql_type = Text)]
    transaction_id: String,
    #[diesel(sql_type = Bool)]
    fits: bool,
    #[diesel(sql_type = Array<SmallInt>)]
    verdicts: Vec<i16>,
    #[diesel(sql_type = Timestamptz)]
    create_time: Timestamp,
    #[diesel(sql_type = Nullable<Array<Nullable<Timestamptz>>>)]
    deletion_times: Option<Vec<Option<Timestamp>>>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    figures: Option<Value>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    answered: Option<Value>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    facts: Option<Value>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    event_positions: Option<Value>,
}

#[derive(Deserialize)]
struct AnsweredBefore {
    method: i16,
    payload_sha256: Digest,
    answer: Value,
}

/// Writes finished uploads, all rows of all of them. The transaction must then be committed, or rolled back when they do
/// not fit.
pub async fn commit_uploads<A: Serialize>(
    tx: &mut TenantTx,
    uploads: &[Finished<'_, A>],
    answer_hours: u32,
) -> Result<CommitOutcome, DbError> {
    let rows: Vec<FinishedRow<'_, A>> = uploads.iter().map(FinishedRow::from).collect();
    let items =
        serde_json::to_string(&rows).map_err(|error| DbError::new(DbErrorKind::Other, OPERATION, error))?;
    let row: OutcomeRow = statement(OPERATION, "SELECT * FROM app.commit_uploads({}::text::jsonb, {})")
        .bind::<Text, _>(items)
        .bind::<Integer, _>(i32::try_from(answer_hours).unwrap_or(i32::MAX))
        .one(tx.connection()?)
        .await?;
    let transaction = TransactionId(row.transaction_id.clone());
    if !row.fits {
        return Ok(CommitOutcome { transaction, verdicts: None });
    }
    let quota = row.figures.clone().and_then(|figures| serde_json::from_value(figures).ok());
    let quota = quota.ok_or_else(|| DbError::corrupt(OPERATION, "quota"))?;
    let verdicts: Vec<Verdict> = uploads
        .iter()
        .enumerate()
        .map(|(place, upload)| row.verdict(place, upload))
        .collect::<Result<_, _>>()?;
    for verdict in &verdicts {
        if let Verdict::Committed(times, _) = verdict {
            tx.note_event(times.event);
        }
    }
    Ok(CommitOutcome { transaction, verdicts: Some((verdicts, quota)) })
}

impl OutcomeRow {
    fn verdict<A>(&self, place: usize, upload: &Finished<'_, A>) -> Result<Verdict, DbError> {
        let request = upload.request.map(|(id, _)| id);
        match self.verdicts.get(place) {
            Some(1) => {
                let deletion_time = self.deletion_times.as_ref().and_then(|times| *times.get(place)?);
                let event = self.event(upload.blob)?;
                let times = CommitTimes { create_time: self.create_time, deletion_time, event };
                let facts = if upload.is_version { Some(Box::new(self.facts(upload.blob)?)) } else { None };
                Ok(Verdict::Committed(times, facts))
            }
            Some(2) => self.answered_before(request).map(Verdict::Answered),
            Some(3) => Ok(Verdict::InProgress),
            Some(4) => Ok(Verdict::Fenced),
            Some(5) => Ok(Verdict::FileGone),
            Some(6) => Ok(Verdict::FileState(FileState::Deleted)),
            Some(7) => Ok(Verdict::FileState(FileState::Archived)),
            Some(8) => Ok(Verdict::NotAllowed),
            Some(9) => Ok(Verdict::Recategorized),
            Some(10) => Ok(Verdict::EtagMismatch),
            _ => Err(DbError::corrupt(OPERATION, "verdict")),
        }
    }

    fn facts(&self, blob: &Blob) -> Result<FileFacts, DbError> {
        let facts = self.facts.as_ref().and_then(|facts| facts.get(blob.id.as_uuid().to_string()));
        facts
            .and_then(|facts| FileFacts::deserialize(facts).ok())
            .ok_or_else(|| DbError::corrupt(OPERATION, "facts of a file"))
    }

    fn event(&self, blob: &Blob) -> Result<EventPosition, DbError> {
        let position = self
            .event_positions
            .as_ref()
            .and_then(|of| of.get(blob.id.as_uuid().to_string())?.as_str()?.parse().ok());
        position.ok_or_else(|| DbError::corrupt(OPERATION, "event position"))
    }

    fn answered_before(&self, request: Option<RequestId>) -> Result<StoredAnswer, DbError> {
        let bad = |what: &str| DbError::corrupt(OPERATION, what);
        let request_id = request.ok_or_else(|| bad("answer without a request id"))?;
        let stored =
            self.answered.as_ref().and_then(|answered| answered.get(request_id.as_uuid().to_string()));
        let stored = stored.ok_or_else(|| bad("absence of an answer"))?;
        let before = AnsweredBefore::deserialize(stored).map_err(|_| bad("answer"))?;
        let method = Method::from_number(before.method).ok_or_else(|| bad("method"))?;
        Ok(StoredAnswer { request_id, method, payload: before.payload_sha256, answer: before.answer })
    }
}

#[derive(QueryableByName)]
struct TermsRow {
    #[diesel(embed)]
    quota: QuotaRow,
    #[diesel(sql_type = Nullable<SmallInt>)]
    method: Option<i16>,
    #[diesel(sql_type = Nullable<Binary>)]
    payload_sha256: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    answer: Option<Value>,
}

/// What is known about an upload before its bytes.
#[derive(Debug)]
pub struct UploadTerms {
    /// The tenant's quota.
    pub quota: Quota,
    /// What was answered to its request id before, if anything.
    pub answered: Option<StoredAnswer>,
}

impl Database {
    /// What an upload may store, and what was answered to its request id within so many hours. One round trip, and so its
    /// time limit is kept here: one that is set inside the statement is too late for it.
    pub async fn upload_terms(
        &self,
        tenant: TenantId,
        request: Option<RequestId>,
        answer_hours: u32,
    ) -> Result<UploadTerms, DbError> {
        const OPERATION: &str = "read upload terms";
        let mut connection = self.tenant_pool.acquire().await?;
        let sql = format!(
            "SELECT {}, terms.method, terms.payload_sha256, terms.answer
             FROM app.upload_terms({{}}, {{}}, {{}}, {{}}) AS terms, LATERAL (SELECT (terms.quota).*) AS quota",
            quotas::COLUMNS
        );
        let read = statement(OPERATION, sql)
            .bind::<SqlUuid, _>(tenant.as_uuid())
            .bind::<Nullable<SqlUuid>, _>(request.map(|id| id.as_uuid()))
            .bind::<Integer, _>(i32::try_from(answer_hours).unwrap_or(i32::MAX))
            .bind::<Nullable<Text>, _>(self.now_override().map(|now| now.to_rfc3339()))
            .one(&mut connection);
        let row: TermsRow = match timeout(self.statement_timeout, read).await {
            Ok(row) => row?,
            Err(elapsed) => {
                // Its answer is still to come: nobody else may use this connection.
                drop(Object::take(connection));
                return Err(DbError::new(DbErrorKind::TimedOut, OPERATION, elapsed));
            }
        };
        let bad = |what: &str| DbError::corrupt(OPERATION, what);
        let answered = match (request, row.method, row.payload_sha256, row.answer) {
            (Some(request_id), Some(method), Some(payload), Some(answer)) => Some(StoredAnswer {
                request_id,
                method: Method::from_number(method).ok_or_else(|| bad("method"))?,
                payload: Digest::from_slice(&payload).map_err(|_| bad("digest"))?,
                answer,
            }),
            _ => None,
        };
        Ok(UploadTerms { quota: row.quota.into(), answered })
    }
}
