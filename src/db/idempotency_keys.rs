//! Answers under their request ids. A unique key cannot span partitions, so whoever looks for an answer in order to write
//! one holds a transaction-level lock on the request id first.

use diesel::{
    QueryableByName,
    sql_types::{Array, Binary, Integer, Jsonb, SmallInt, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, TenantTx, statement::statement};
use crate::domain::{digest::Digest, ids::RequestId, sql_enum::sql_enum};

sql_enum! {
    /// The mutations that can be retried.
    Method {
        /// UploadFile
        UploadFile = 1 => "UploadFile",
        /// DeleteFile
        DeleteFile = 2 => "DeleteFile",
        /// UndeleteFile
        UndeleteFile = 3 => "UndeleteFile",
        /// PurgeFile
        PurgeFile = 4 => "PurgeFile",
        /// UpdateQuota
        UpdateQuota = 5 => "UpdateQuota",
        /// ArchiveFile
        ArchiveFile = 6 => "ArchiveFile",
        /// UnarchiveFile
        UnarchiveFile = 7 => "UnarchiveFile",
        /// UpdateFile
        UpdateFile = 8 => "UpdateFile",
        /// CreateUpload
        CreateUpload = 60 => "CreateUpload",
        /// CancelUpload
        CancelUpload = 61 => "CancelUpload",
        /// RestoreFileVersion
        RestoreFileVersion = 40 => "RestoreFileVersion",
        /// DeleteFileVersion
        DeleteFileVersion = 41 => "DeleteFileVersion",
        /// CopyFile
        CopyFile = 42 => "CopyFile",
        /// BatchDeleteFiles
        BatchDeleteFiles = 43 => "BatchDeleteFiles",
        /// SetLegalHold
        SetLegalHold = 44 => "SetLegalHold",
        /// ReleaseLegalHold
        ReleaseLegalHold = 45 => "ReleaseLegalHold",
        /// CreateCategory
        CreateCategory = 50 => "CreateCategory",
        /// UpdateCategory
        UpdateCategory = 51 => "UpdateCategory",
        /// DeleteCategory
        DeleteCategory = 52 => "DeleteCategory",
        /// TransferOwnership
        TransferOwnership = 53 => "TransferOwnership",
        /// SuspendTenant
        SuspendTenant = 54 => "SuspendTenant",
        /// ResumeTenant
        ResumeTenant = 55 => "ResumeTenant",
        /// DeleteTenant
        DeleteTenant = 56 => "DeleteTenant",
        /// UpdateTenant
        UpdateTenant = 57 => "UpdateTenant",
        /// CreateWebhook
        CreateWebhook = 30 => "CreateWebhook",
        /// UpdateWebhook
        UpdateWebhook = 31 => "UpdateWebhook",
        /// DeleteWebhook
        DeleteWebhook = 32 => "DeleteWebhook",
        /// RotateWebhookSecret
        RotateWebhookSecret = 33 => "RotateWebhookSecret",
        /// RedeliverWebhook
        RedeliverWebhook = 34 => "RedeliverWebhook",
    }
}

/// An answer that was given.
#[derive(Debug, Clone)]
pub struct StoredAnswer {
    /// Under which id.
    pub request_id: RequestId,
    /// To which method.
    pub method: Method,
    /// To which payload.
    pub payload: Digest,
    /// What was answered.
    pub answer: serde_json::Value,
}

#[derive(QueryableByName)]
struct Locked {
    #[diesel(sql_type = SqlUuid)]
    request_id: Uuid,
}

/// Locks request ids until the transaction ends; answers those it got. One that is missing is being worked on.
pub async fn lock(tx: &mut TenantTx, ids: &[RequestId]) -> Result<Vec<RequestId>, DbError> {
    let rows: Vec<Locked> = statement(
        "lock request ids",
        "SELECT id AS request_id FROM unnest({}) AS id
         WHERE pg_try_advisory_xact_lock(hashtextextended({}::uuid::text || id::text, 0))",
    )
    .bind::<Array<SqlUuid>, _>(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .load(tx.connection()?)
    .await?;
    Ok(rows.into_iter().map(|row| RequestId::from_uuid(row.request_id)).collect())
}

#[derive(QueryableByName)]
struct AnswerRow {
    #[diesel(sql_type = SqlUuid)]
    request_id: Uuid,
    #[diesel(sql_type = SmallInt)]
    method: i16,
    #[diesel(sql_type = Binary)]
    payload_sha256: Vec<u8>,
    #[diesel(sql_type = Jsonb)]
    answer: serde_json::Value,
}

/// The answers given under these ids within so many hours.
pub async fn find(tx: &mut TenantTx, ids: &[RequestId], hours: u32) -> Result<Vec<StoredAnswer>, DbError> {
    let rows: Vec<AnswerRow> = statement(
        "find answers",
        "SELECT request_id, method, payload_sha256, answer FROM idempotency_keys
         WHERE tenant_id = {} AND request_id = ANY ({}) AND create_time > app.now() - make_interval(hours => {})",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
    .bind::<Integer, _>(i32::try_from(hours).unwrap_or(i32::MAX))
    .load(tx.connection()?)
    .await?;
    rows.into_iter()
        .map(|row| {
            let bad = |what: &str| DbError::corrupt("find answers", what);
            Ok(StoredAnswer {
                request_id: RequestId::from_uuid(row.request_id),
                method: Method::from_number(row.method).ok_or_else(|| bad("method"))?,
                payload: Digest::from_slice(&row.payload_sha256).map_err(|_| bad("digest"))?,
                answer: row.answer,
            })
        })
        .collect()
}

/// Writes answers under ids that this transaction has locked.
pub async fn insert(tx: &mut TenantTx, answers: &[StoredAnswer]) -> Result<(), DbError> {
    if answers.is_empty() {
        return Ok(());
    }
    statement(
        "insert answers",
        "INSERT INTO idempotency_keys (tenant_id, request_id, create_time, method, payload_sha256, answer)
         SELECT {}, n.request_id, app.now(), n.method, n.payload_sha256, n.answer
         FROM unnest({}, {}, {}, {}) AS n (request_id, method, payload_sha256, answer)",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(answers.iter().map(|answer| answer.request_id.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<SmallInt>, _>(answers.iter().map(|answer| answer.method.number()).collect::<Vec<_>>())
    .bind::<Array<Binary>, _>(
        answers.iter().map(|answer| answer.payload.as_bytes().to_vec()).collect::<Vec<_>>(),
    )
    .bind::<Array<Jsonb>, _>(answers.iter().map(|answer| answer.answer.clone()).collect::<Vec<_>>())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}
