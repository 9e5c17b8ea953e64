//! Stored responses by request id. A unique constraint cannot span partitions, so a transaction takes an
//! advisory lock on the request id before it looks for a response or inserts one.

use diesel::{
    QueryableByName,
    sql_types::{Array, Binary, Integer, Jsonb, SmallInt, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, TenantTx, sql::statement};
use crate::domain::{digest::Digest, ids::RequestId, sql_enum::sql_enum};

sql_enum! {
    /// A mutation that can be retried under a request id.
    Method {
        UploadFile = 1 => "UploadFile",
        DeleteFile = 2 => "DeleteFile",
        UndeleteFile = 3 => "UndeleteFile",
        PurgeFile = 4 => "PurgeFile",
        UpdateQuota = 5 => "UpdateQuota",
        ArchiveFile = 6 => "ArchiveFile",
        UnarchiveFile = 7 => "UnarchiveFile",
        UpdateFile = 8 => "UpdateFile",
        CreateUpload = 60 => "CreateUpload",
        CancelUpload = 61 => "CancelUpload",
        RestoreFileVersion = 40 => "RestoreFileVersion",
        DeleteFileVersion = 41 => "DeleteFileVersion",
        CopyFile = 42 => "CopyFile",
        BatchDeleteFiles = 43 => "BatchDeleteFiles",
        SetLegalHold = 44 => "SetLegalHold",
        ReleaseLegalHold = 45 => "ReleaseLegalHold",
        CreateCategory = 50 => "CreateCategory",
        UpdateCategory = 51 => "UpdateCategory",
        DeleteCategory = 52 => "DeleteCategory",
        TransferOwnership = 53 => "TransferOwnership",
        SuspendTenant = 54 => "SuspendTenant",
        ResumeTenant = 55 => "ResumeTenant",
        DeleteTenant = 56 => "DeleteTenant",
        UpdateTenant = 57 => "UpdateTenant",
        CreateWebhook = 30 => "CreateWebhook",
        UpdateWebhook = 31 => "UpdateWebhook",
        DeleteWebhook = 32 => "DeleteWebhook",
        RotateWebhookSecret = 33 => "RotateWebhookSecret",
        RedeliverWebhook = 34 => "RedeliverWebhook",
    }
}

/// A request id with the digest of the payload of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    pub id: RequestId,
    pub payload: Digest,
}

/// The response to an earlier request.
#[derive(Debug, Clone)]
pub struct StoredResponse {
    pub request_id: RequestId,
    pub method: Method,
    /// The digest of the request's payload.
    pub payload: Digest,
    pub response: serde_json::Value,
}

#[derive(QueryableByName)]
struct LockedRow {
    #[diesel(sql_type = SqlUuid)]
    request_id: Uuid,
}

/// Tries to lock request ids until the transaction ends, and returns those it locked. The others are in use
/// by a concurrent request.
pub async fn lock(tx: &mut TenantTx, ids: &[RequestId]) -> Result<Vec<RequestId>, DbError> {
    let rows: Vec<LockedRow> = statement(
        "lock request ids",
        "SELECT id AS request_id FROM unnest($1) AS id
         WHERE pg_try_advisory_xact_lock(hashtextextended($2::uuid::text || id::text, 0))",
    )
    .bind::<Array<SqlUuid>, _>(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .load(tx.connection()?)
    .await?;
    Ok(rows.into_iter().map(|row| RequestId::from_uuid(row.request_id)).collect())
}

#[derive(QueryableByName)]
struct ResponseRow {
    #[diesel(sql_type = SqlUuid)]
    request_id: Uuid,
    #[diesel(sql_type = SmallInt)]
    method: i16,
    #[diesel(sql_type = Binary)]
    payload_sha256: Vec<u8>,
    #[diesel(sql_type = Jsonb)]
    response: serde_json::Value,
}

/// Returns the responses stored under these ids within the last `hours`.
pub async fn list_responses(
    tx: &mut TenantTx,
    ids: &[RequestId],
    hours: u32,
) -> Result<Vec<StoredResponse>, DbError> {
    const OPERATION: &str = "list responses";
    let rows: Vec<ResponseRow> = statement(
        OPERATION,
        "SELECT request_id, method, payload_sha256, response FROM idempotency_keys
         WHERE tenant_id = $1 AND request_id = ANY ($2) AND create_time > app.now() - make_interval(hours => $3)",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
    .bind::<Integer, _>(i32::try_from(hours).unwrap_or(i32::MAX))
    .load(tx.connection()?)
    .await?;
    rows.into_iter()
        .map(|row| {
            let corrupt = |what: &str| DbError::corrupt(OPERATION, what);
            Ok(StoredResponse {
                request_id: RequestId::from_uuid(row.request_id),
                method: Method::from_number(row.method).ok_or_else(|| corrupt("method"))?,
                payload: Digest::from_slice(&row.payload_sha256).map_err(|_| corrupt("digest"))?,
                response: row.response,
            })
        })
        .collect()
}

/// Inserts responses under ids that this transaction has locked.
pub async fn insert(tx: &mut TenantTx, responses: &[StoredResponse]) -> Result<(), DbError> {
    if responses.is_empty() {
        return Ok(());
    }
    statement(
        "insert responses",
        "INSERT INTO idempotency_keys (tenant_id, request_id, create_time, method, payload_sha256, response)
         SELECT $1, n.request_id, app.now(), n.method, n.payload_sha256, n.response
         FROM unnest($2, $3, $4, $5) AS n (request_id, method, payload_sha256, response)",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(
        responses.iter().map(|response| response.request_id.as_uuid()).collect::<Vec<_>>(),
    )
    .bind::<Array<SmallInt>, _>(responses.iter().map(|response| response.method.number()).collect::<Vec<_>>())
    .bind::<Array<Binary>, _>(
        responses.iter().map(|response| response.payload.as_bytes().to_vec()).collect::<Vec<_>>(),
    )
    .bind::<Array<Jsonb>, _>(responses.iter().map(|response| response.response.clone()).collect::<Vec<_>>())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}
