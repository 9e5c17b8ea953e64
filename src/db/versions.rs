//! The contents a file has had.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Binary, Integer, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, TenantTx,
    blobs::{self, Blob, BlobRow},
    statement::statement,
};
use crate::domain::{
    file::{ContentState, File},
    ids::{BlobId, FileId},
};

/// Inserts the first version of new files, each on its blob.
pub async fn insert(tx: &mut TenantTx, files: &[&File], blobs: &[&Blob]) -> Result<(), DbError> {
    let texts =
        |pick: fn(&File) -> &str| files.iter().map(|file| pick(file).to_owned()).collect::<Vec<String>>();
    let numbers = |pick: fn(&File) -> i16| files.iter().map(|file| pick(file)).collect::<Vec<i16>>();
    statement(
        "insert versions",
        "INSERT INTO versions (tenant_id, file_id, version, blob_id, content_state, scan_status, mime_type,
            declared_mime_type, media_kind, size_bytes, sha256, created_by, create_time)
         SELECT {}, n.file_id, n.version, n.blob_id, n.content_state, n.scan_status, n.mime_type,
            n.declared_mime_type, n.media_kind, n.size_bytes, n.sha256, n.created_by, app.now()
         FROM unnest({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})
            AS n (file_id, version, blob_id, content_state, scan_status, mime_type, declared_mime_type, media_kind,
                  size_bytes, sha256, created_by)",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(files.iter().map(|file| file.id.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(files.iter().map(|file| file.version).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(blobs.iter().map(|blob| blob.id.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<SmallInt>, _>(numbers(|file| file.content_state.number()))
    .bind::<Array<SmallInt>, _>(numbers(|file| file.scan_status.number()))
    .bind::<Array<Text>, _>(texts(|file| &file.mime_type))
    .bind::<Array<Text>, _>(texts(|file| &file.declared_mime_type))
    .bind::<Array<SmallInt>, _>(numbers(|file| file.media_kind.number()))
    .bind::<Array<BigInt>, _>(
        blobs.iter().map(|blob| i64::try_from(blob.size_bytes).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
    )
    .bind::<Array<Binary>, _>(blobs.iter().map(|blob| blob.sha256.as_bytes().to_vec()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(texts(|file| &file.created_by))
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

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
