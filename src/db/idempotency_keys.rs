//! Stored responses by request id. A unique constraint cannot span partitions, so a transaction takes an
//! advisory lock on the request id before it looks for a response or inserts one.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName, Selectable, SelectableHelper as _,
    sql_types::{Array, Binary, Jsonb, SmallInt, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::idempotency_keys,
    sql::{OfTenant as _, hours, now_minus, query, statement},
};
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
        CreateShare = 120 => "CreateShare",
        UpdateShare = 121 => "UpdateShare",
        RevokeShare = 122 => "RevokeShare",
        RotateShareToken = 123 => "RotateShareToken",
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
        ReclaimTenant = 58 => "ReclaimTenant",
        RequestErasure = 59 => "RequestErasure",
        ApproveErasure = 63 => "ApproveErasure",
        CreateWebhook = 30 => "CreateWebhook",
        UpdateWebhook = 31 => "UpdateWebhook",
        DeleteWebhook = 32 => "DeleteWebhook",
        RotateWebhookSecret = 33 => "RotateWebhookSecret",
        RedeliverWebhook = 34 => "RedeliverWebhook",
        UpdateUserQuota = 106 => "UpdateUserQuota",
        RecalculateUsage = 105 => "RecalculateUsage",
        AddCredits = 102 => "AddCredits",
        DeductCredits = 103 => "DeductCredits",
        GrantAccess = 100 => "GrantAccess",
        RevokeAccess = 101 => "RevokeAccess",
    }
}

/// A request id with the digest of the payload of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    pub id: RequestId,
    pub payload: Digest,
}

/// The response to an earlier request.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = idempotency_keys, check_for_backend(diesel::pg::Pg))]
pub struct StoredResponse {
    pub request_id: RequestId,
    pub method: Method,
    /// The digest of the request's payload.
    #[diesel(column_name = payload_sha256)]
    pub payload: Digest,
    pub response: serde_json::Value,
}

#[derive(QueryableByName)]
#[diesel(table_name = idempotency_keys)]
struct LockedRow {
    request_id: RequestId,
}

/// Tries to lock request ids until the transaction ends, and returns those it locked. The others are in use
/// by a concurrent request.
pub async fn lock(tx: &mut TenantTx, ids: &[RequestId]) -> Result<Vec<RequestId>, DbError> {
    // Advisory locks of an `unnest` batch.
    let rows: Vec<LockedRow> = statement(
        "lock request ids",
        "SELECT id AS request_id FROM unnest($1) AS id
         WHERE pg_try_advisory_xact_lock(hashtextextended($2::uuid::text || id::text, 0))",
    )
    .bind::<Array<SqlUuid>, _>(ids.to_vec())
    .bind::<SqlUuid, _>(tx.tenant())
    .load(tx.connection()?)
    .await?;
    Ok(rows.into_iter().map(|row| row.request_id).collect())
}

/// Returns the responses stored under these ids within the last `hours`.
pub async fn list_responses(
    tx: &mut TenantTx,
    ids: &[RequestId],
    hours: u32,
) -> Result<Vec<StoredResponse>, DbError> {
    let responses = idempotency_keys::table
        .of(tx.tenant())
        .filter(idempotency_keys::request_id.eq_any(ids))
        .filter(idempotency_keys::create_time.gt(now_minus(self::hours(hours))))
        .select(StoredResponse::as_select());
    query("list responses", responses).load(tx.connection()?).await
}

/// Inserts responses under ids that this transaction has locked.
pub async fn insert(tx: &mut TenantTx, responses: &[StoredResponse]) -> Result<(), DbError> {
    if responses.is_empty() {
        return Ok(());
    }
    let ids: Vec<RequestId> = responses.iter().map(|stored| stored.request_id).collect();
    let methods: Vec<Method> = responses.iter().map(|stored| stored.method).collect();
    let payloads: Vec<Digest> = responses.iter().map(|stored| stored.payload).collect();
    let responses: Vec<serde_json::Value> = responses.iter().map(|stored| stored.response.clone()).collect();
    // `unnest` batch.
    statement(
        "insert responses",
        "INSERT INTO idempotency_keys (tenant_id, request_id, create_time, method, payload_sha256, response)
         SELECT $1, n.request_id, app.now(), n.method, n.payload_sha256, n.response
         FROM unnest($2, $3, $4, $5) AS n (request_id, method, payload_sha256, response)",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<SmallInt>, _>(methods)
    .bind::<Array<Binary>, _>(payloads)
    .bind::<Array<Jsonb>, _>(responses)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}
