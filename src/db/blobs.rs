//! Stored objects: one object, one row.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Binary, Integer, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, statement::statement};
use crate::domain::{
    digest::Digest,
    ids::{BlobId, TenantId},
    object_key::ObjectKey,
};

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its id.
    pub id: BlobId,
    /// The provider that holds it.
    pub provider: String,
    /// Its key there.
    pub key: ObjectKey,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest.
    pub sha256: Digest,
}

#[derive(QueryableByName)]
pub(super) struct BlobRow {
    #[diesel(sql_type = SqlUuid)]
    blob_id: Uuid,
    #[diesel(sql_type = Text)]
    provider: String,
    #[diesel(sql_type = Text)]
    storage_key: String,
    #[diesel(sql_type = BigInt)]
    blob_size_bytes: i64,
    #[diesel(sql_type = Binary)]
    blob_sha256: Vec<u8>,
}

pub(super) const COLUMNS: &str =
    "b.id AS blob_id, b.provider, b.storage_key, b.size_bytes AS blob_size_bytes, b.sha256 AS blob_sha256";

impl BlobRow {
    pub(super) fn read(self) -> Result<Blob, DbError> {
        let bad = |what: &str| DbError::corrupt("read blob", what);
        Ok(Blob {
            id: BlobId::from_uuid(self.blob_id),
            provider: self.provider,
            key: ObjectKey::parse(&self.storage_key).map_err(|_| bad("storage key"))?,
            size_bytes: u64::try_from(self.blob_size_bytes).map_err(|_| bad("size"))?,
            sha256: Digest::from_slice(&self.blob_sha256).map_err(|_| bad("digest"))?,
        })
    }
}

/// Lets go of blobs that no version refers to any more: their bytes go after so many hours, so that a database restored
/// to an hour ago still finds them.
pub async fn release(tx: &mut TenantTx, ids: &[BlobId], undelete_window_hours: u32) -> Result<(), DbError> {
    statement(
        "release blobs",
        "UPDATE blobs AS b SET delete_after = app.now() + make_interval(hours => {})
         WHERE b.tenant_id = {} AND b.id = ANY ({})
           AND NOT EXISTS (SELECT FROM versions AS v WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id)",
    )
    .bind::<Integer, _>(i32::try_from(undelete_window_hours).unwrap_or(i32::MAX))
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// A blob whose time has come.
#[derive(Debug, Clone)]
pub struct DueBlob {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub blob: Blob,
}

#[derive(QueryableByName)]
struct DueRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(embed)]
    blob: BlobRow,
}

/// Blobs of one provider that nothing refers to and whose undelete window has passed.
pub async fn list_due(tx: &mut SystemTx, provider: &str, limit: i64) -> Result<Vec<DueBlob>, DbError> {
    let sql = format!(
        "SELECT b.tenant_id, {COLUMNS} FROM blobs AS b WHERE b.delete_after <= app.now() AND b.provider = {{}}
           AND NOT EXISTS (SELECT FROM versions AS v WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id)
         ORDER BY b.delete_after LIMIT {{}}"
    );
    let rows: Vec<DueRow> = statement("find due blobs", sql)
        .bind::<Text, _>(provider.to_owned())
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter()
        .map(|row| Ok(DueBlob { tenant: TenantId::from_uuid(row.tenant_id), blob: row.blob.read()? }))
        .collect()
}

#[derive(QueryableByName)]
struct ProviderRow {
    #[diesel(sql_type = Text)]
    provider: String,
}

/// The providers that blobs name. Walks the index from one (tenant, provider) to the next, because there may be many more
/// blobs than of those.
pub async fn providers(tx: &mut SystemTx) -> Result<Vec<String>, DbError> {
    let rows: Vec<ProviderRow> = statement(
        "find providers",
        "WITH RECURSIVE walk AS (
             (SELECT tenant_id, provider FROM blobs ORDER BY tenant_id, provider LIMIT 1)
             UNION ALL
             SELECT next.tenant_id, next.provider FROM walk CROSS JOIN LATERAL (
                 SELECT b.tenant_id, b.provider FROM blobs AS b
                 WHERE (b.tenant_id, b.provider) > (walk.tenant_id, walk.provider)
                 ORDER BY b.tenant_id, b.provider LIMIT 1) AS next
         )
         SELECT DISTINCT provider FROM walk ORDER BY provider",
    )
    .load(tx.connection()?)
    .await?;
    Ok(rows.into_iter().map(|row| row.provider).collect())
}

/// Forgets a blob whose bytes are gone.
pub async fn delete(tx: &mut SystemTx, tenant: TenantId, id: BlobId) -> Result<(), DbError> {
    statement("delete blob", "DELETE FROM blobs WHERE tenant_id = {} AND id = {}")
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
