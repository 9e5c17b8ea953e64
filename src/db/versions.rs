//! The contents a file has had.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Integer, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, TenantTx,
    blobs::{self, Blob, BlobRow},
    statement::statement,
};
use crate::domain::{
    clock::Timestamp,
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
    row.map(VersionRow::read).transpose()
}

impl VersionRow {
    fn read(self) -> Result<StoredVersion, DbError> {
        let content_state = ContentState::from_number(self.content_state)
            .ok_or_else(|| DbError::corrupt("read version", "content state"))?;
        Ok(StoredVersion { version: self.version, content_state, blob: self.blob.read()? })
    }
}

/// A version as an export tells it.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the columns of their names")]
pub struct ExportedVersion {
    pub file: FileId,
    pub stored: StoredVersion,
    pub mime_type: String,
    pub declared_mime_type: String,
    pub created_by: String,
    pub create_time: Timestamp,
}

#[derive(QueryableByName)]
struct ExportedRow {
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
    #[diesel(sql_type = Text)]
    mime_type: String,
    #[diesel(sql_type = Text)]
    declared_mime_type: String,
    #[diesel(sql_type = Text)]
    created_by: String,
    #[diesel(sql_type = Timestamptz)]
    create_time: Timestamp,
    #[diesel(embed)]
    version: VersionRow,
}

/// Every version of some files, by file and number.
pub async fn list_of(tx: &mut TenantTx, files: &[FileId]) -> Result<Vec<ExportedVersion>, DbError> {
    let sql = format!(
        "SELECT v.file_id, v.mime_type, v.declared_mime_type, v.created_by, v.create_time, v.version, v.content_state, {}
         FROM versions AS v JOIN blobs AS b ON b.tenant_id = v.tenant_id AND b.id = v.blob_id
         WHERE v.tenant_id = {{}} AND v.file_id = ANY ({{}}) ORDER BY v.file_id, v.version",
        blobs::COLUMNS
    );
    let rows: Vec<ExportedRow> = statement("list versions", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<Array<SqlUuid>, _>(files.iter().map(|file| file.as_uuid()).collect::<Vec<_>>())
        .load(tx.connection()?)
        .await?;
    let exported = |row: ExportedRow| {
        Ok(ExportedVersion {
            file: FileId::from_uuid(row.file_id),
            stored: row.version.read()?,
            mime_type: row.mime_type,
            declared_mime_type: row.declared_mime_type,
            created_by: row.created_by,
            create_time: row.create_time,
        })
    };
    rows.into_iter().map(exported).collect()
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
