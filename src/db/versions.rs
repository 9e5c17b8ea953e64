//! The contents a file has had.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Integer, SmallInt, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, TenantTx,
    blobs::{self, Blob, BlobRow},
    statement::statement,
};
use crate::domain::{
    file::ContentState,
    ids::{BlobId, FileId},
};

/// A version with the blob that holds its bytes.
#[derive(Debug, Clone)]
pub struct StoredVersion {
    /// The number.
    pub version: i32,
    /// The state of this content, which need not be that of the current one.
    pub content_state: ContentState,
    /// Where the bytes are.
    pub blob: Blob,
}

#[derive(QueryableByName)]
struct VersionRow {
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = SmallInt)]
    content_state: i16,
    #[diesel(embed)]
    blob: BlobRow,
}

/// One version of a file that the caller was shown.
pub async fn get(tx: &mut TenantTx, file: FileId, version: i32) -> Result<Option<StoredVersion>, DbError> {
    let sql = format!(
        "SELECT v.version, v.content_state, {} FROM versions AS v
         JOIN blobs AS b ON b.tenant_id = v.tenant_id AND b.id = v.blob_id
         WHERE v.tenant_id = {{}} AND v.file_id = {{}} AND v.version = {{}}",
        blobs::COLUMNS
    );
    let row: Option<VersionRow> = statement("get version", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .bind::<Integer, _>(version)
        .first(tx.connection()?)
        .await?;
    row.map(|row| {
        let content_state = ContentState::from_number(row.content_state)
            .ok_or_else(|| DbError::corrupt("get version", "content state"))?;
        Ok(StoredVersion { version: row.version, content_state, blob: row.blob.read()? })
    })
    .transpose()
}

#[derive(QueryableByName)]
struct Removed {
    #[diesel(sql_type = SqlUuid)]
    blob_id: Uuid,
    #[diesel(sql_type = BigInt)]
    size_bytes: i64,
}

/// What went with the versions of a file.
#[derive(Debug, Default)]
pub struct RemovedVersions {
    /// The blobs they stood on.
    pub blobs: Vec<BlobId>,
    /// How many bytes they were charged.
    pub charged_bytes: i64,
}

/// Removes every version of a file.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<RemovedVersions, DbError> {
    let rows: Vec<Removed> = statement(
        "delete versions",
        "DELETE FROM versions WHERE tenant_id = {} AND file_id = {} RETURNING blob_id, size_bytes",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .load(tx.connection()?)
    .await?;
    Ok(RemovedVersions {
        charged_bytes: rows.iter().map(|row| row.size_bytes).sum(),
        blobs: rows.into_iter().map(|row| BlobId::from_uuid(row.blob_id)).collect(),
    })
}

#[derive(QueryableByName)]
struct Charged {
    #[diesel(sql_type = BigInt)]
    charged_bytes: i64,
}

/// How many bytes the versions of a file are charged.
pub async fn charged_bytes(tx: &mut TenantTx, file: FileId) -> Result<i64, DbError> {
    let row: Charged = statement(
        "sum versions",
        "SELECT coalesce(sum(size_bytes), 0)::bigint AS charged_bytes FROM versions
         WHERE tenant_id = {} AND file_id = {}",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .one(tx.connection()?)
    .await?;
    Ok(row.charged_bytes)
}
