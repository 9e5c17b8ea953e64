//! Versions of files.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Binary, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, TenantTx,
    blobs::{self, Blob, BlobRow},
    sql::statement,
};
use crate::domain::{
    clock::Timestamp,
    digest::Digest,
    file::{ContentState, FileVersion, ScanStatus, StateReason},
    ids::{BlobId, FileId},
    media_type::MediaKind,
    storage_class::StorageClass,
};

/// A version with its blob.
#[derive(Debug, Clone)]
pub struct StoredVersion {
    pub version: i32,
    /// The state of this version, which need not be the current one.
    pub content_state: ContentState,
    /// The reason, if it is in state ERROR.
    pub state_reason: Option<StateReason>,
    /// The resolved media type.
    pub mime_type: String,
    pub created_by: String,
    pub blob: Blob,
}

#[derive(QueryableByName)]
struct VersionRow {
    #[diesel(sql_type = Text)]
    mime_type: String,
    #[diesel(sql_type = Text)]
    created_by: String,
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = SmallInt)]
    content_state: i16,
    #[diesel(sql_type = Nullable<SmallInt>)]
    state_reason: Option<i16>,
    #[diesel(embed)]
    blob: BlobRow,
}

/// Returns one version of a file. The caller has already checked that the viewer may see the file.
pub async fn get(tx: &mut TenantTx, file: FileId, version: i32) -> Result<Option<StoredVersion>, DbError> {
    let sql = format!(
        "SELECT v.version, v.content_state, v.state_reason, v.mime_type, v.created_by, {} FROM versions AS v
         JOIN blobs AS b ON b.tenant_id = v.tenant_id AND b.id = v.blob_id
         WHERE v.tenant_id = $1 AND v.file_id = $2 AND v.version = $3",
        blobs::COLUMNS
    );
    let row: Option<VersionRow> = statement("get version", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .bind::<Integer, _>(version)
        .first(tx.connection()?)
        .await?;
    row.map(VersionRow::into_version).transpose()
}

impl VersionRow {
    fn into_version(self) -> Result<StoredVersion, DbError> {
        let content_state = ContentState::from_number(self.content_state)
            .ok_or_else(|| DbError::corrupt("read version", "content state"))?;
        let state_reason = self.state_reason.and_then(StateReason::from_number);
        let Self { version, mime_type, created_by, blob, .. } = self;
        Ok(StoredVersion {
            version,
            content_state,
            state_reason,
            mime_type,
            created_by,
            blob: blob.into_blob()?,
        })
    }
}

/// A version in a tenant export.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the columns of the same names")]
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

/// The position of a version in a list that is ordered by file and number.
#[derive(Debug, Clone, Copy)]
pub struct VersionPosition {
    pub file: FileId,
    pub version: i32,
}

/// Returns versions of the given files after a position, ordered by file and number.
pub async fn list_after(
    tx: &mut TenantTx,
    files: &[FileId],
    after: Option<VersionPosition>,
    limit: i64,
) -> Result<Vec<ExportedVersion>, DbError> {
    let (file, version) = after.map_or((Uuid::nil(), 0), |after| (after.file.as_uuid(), after.version));
    let sql = format!(
        "SELECT v.file_id, v.mime_type, v.declared_mime_type, v.created_by, v.create_time, v.version, v.content_state, v.state_reason, {}
         FROM versions AS v JOIN blobs AS b ON b.tenant_id = v.tenant_id AND b.id = v.blob_id
         WHERE v.tenant_id = $1 AND v.file_id = ANY ($2) AND (v.file_id, v.version) > ($3, $4)
         ORDER BY v.file_id, v.version LIMIT $5",
        blobs::COLUMNS
    );
    let rows: Vec<ExportedRow> = statement("list versions", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<Array<SqlUuid>, _>(files.iter().map(|file| file.as_uuid()).collect::<Vec<_>>())
        .bind::<SqlUuid, _>(file)
        .bind::<Integer, _>(version)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    let exported = |row: ExportedRow| {
        Ok(ExportedVersion {
            file: FileId::from_uuid(row.file_id),
            stored: row.version.into_version()?,
            mime_type: row.mime_type,
            declared_mime_type: row.declared_mime_type,
            created_by: row.created_by,
            create_time: row.create_time,
        })
    };
    rows.into_iter().map(exported).collect()
}

/// The bytes charged for versions, by the media kind under which each was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charge(pub Vec<(MediaKind, i64)>);

impl Charge {
    /// Returns the total, in bytes.
    pub fn bytes(&self) -> i64 {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

#[derive(QueryableByName)]
struct DeletedRow {
    #[diesel(sql_type = SqlUuid)]
    blob_id: Uuid,
    #[diesel(sql_type = SmallInt)]
    media_kind: i16,
    #[diesel(sql_type = BigInt)]
    size_bytes: i64,
}

/// The result of deleting versions.
#[derive(Debug, Default)]
pub struct DeletedVersions {
    /// The blobs that the versions referenced.
    pub blobs: Vec<BlobId>,
    /// The bytes that were charged for the versions.
    pub charge: Charge,
}

impl DeletedVersions {
    fn from_rows(rows: Vec<DeletedRow>) -> Result<Self, DbError> {
        let charge = rows.iter().map(|row| Ok((media_kind(row.media_kind)?, row.size_bytes)));
        Ok(Self {
            charge: Charge(charge.collect::<Result<_, DbError>>()?),
            blobs: rows.into_iter().map(|row| BlobId::from_uuid(row.blob_id)).collect(),
        })
    }
}

/// Deletes all versions of a file.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<DeletedVersions, DbError> {
    let rows: Vec<DeletedRow> = statement(
        "delete versions",
        "DELETE FROM versions WHERE tenant_id = $1 AND file_id = $2 RETURNING blob_id, media_kind, size_bytes",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .load(tx.connection()?)
    .await?;
    DeletedVersions::from_rows(rows)
}

/// Deletes one version of a file.
pub async fn delete_one(tx: &mut TenantTx, file: FileId, version: i32) -> Result<DeletedVersions, DbError> {
    let rows: Vec<DeletedRow> = statement(
        "delete version",
        "DELETE FROM versions WHERE tenant_id = $1 AND file_id = $2 AND version = $3
         RETURNING blob_id, media_kind, size_bytes",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .bind::<Integer, _>(version)
    .load(tx.connection()?)
    .await?;
    DeletedVersions::from_rows(rows)
}

fn media_kind(number: i16) -> Result<MediaKind, DbError> {
    MediaKind::from_number(number).ok_or_else(|| DbError::corrupt("read version", "media kind"))
}

#[derive(QueryableByName)]
struct ChargeRow {
    #[diesel(sql_type = SmallInt)]
    media_kind: i16,
    #[diesel(sql_type = BigInt)]
    charged_bytes: i64,
}

/// Returns the bytes charged for the versions of a file.
pub async fn get_charge(tx: &mut TenantTx, file: FileId) -> Result<Charge, DbError> {
    let rows: Vec<ChargeRow> = statement(
        "sum versions",
        "SELECT media_kind, sum(size_bytes)::bigint AS charged_bytes FROM versions
         WHERE tenant_id = $1 AND file_id = $2 GROUP BY media_kind ORDER BY media_kind",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .load(tx.connection()?)
    .await?;
    let charge = rows.into_iter().map(|row| Ok((media_kind(row.media_kind)?, row.charged_bytes)));
    Ok(Charge(charge.collect::<Result<_, DbError>>()?))
}

#[derive(QueryableByName)]
struct ListedRow {
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = SmallInt)]
    content_state: i16,
    #[diesel(sql_type = SmallInt)]
    scan_status: i16,
    #[diesel(sql_type = Text)]
    mime_type: String,
    #[diesel(sql_type = Text)]
    declared_mime_type: String,
    #[diesel(sql_type = BigInt)]
    size_bytes: i64,
    #[diesel(sql_type = Nullable<Binary>)]
    sha256: Option<Vec<u8>>,
    #[diesel(sql_type = Text)]
    created_by: String,
    #[diesel(sql_type = Timestamptz)]
    create_time: Timestamp,
    #[diesel(sql_type = Text)]
    change_description: String,
    #[diesel(sql_type = Nullable<Integer>)]
    restored_from: Option<i32>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    state_reason: Option<i16>,
    #[diesel(sql_type = SmallInt)]
    storage_class: i16,
}

/// Returns versions of a file with numbers below `below`, newest first.
pub async fn list(
    tx: &mut TenantTx,
    file: FileId,
    below: i32,
    limit: i64,
) -> Result<Vec<FileVersion>, DbError> {
    let rows: Vec<ListedRow> = statement(
        "list versions",
        "SELECT v.version, v.content_state, v.scan_status, v.mime_type, v.declared_mime_type, v.size_bytes, v.sha256,
            v.created_by, v.create_time, v.change_description, v.restored_from, v.state_reason, b.storage_class
         FROM versions AS v JOIN blobs AS b ON b.tenant_id = v.tenant_id AND b.id = v.blob_id
         WHERE v.tenant_id = $1 AND v.file_id = $2 AND v.version < $3 ORDER BY v.version DESC LIMIT $4",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .bind::<Integer, _>(below)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    let corrupt = |what: &str| DbError::corrupt("list versions", what);
    rows.into_iter()
        .map(|row| {
            Ok(FileVersion {
                version: row.version,
                content_state: ContentState::from_number(row.content_state)
                    .ok_or_else(|| corrupt("content state"))?,
                scan_status: ScanStatus::from_number(row.scan_status)
                    .ok_or_else(|| corrupt("scan status"))?,
                mime_type: row.mime_type,
                declared_mime_type: row.declared_mime_type,
                size_bytes: u64::try_from(row.size_bytes).map_err(|_| corrupt("size"))?,
                sha256: row
                    .sha256
                    .map(|sha256| Digest::from_slice(&sha256))
                    .transpose()
                    .map_err(|_| corrupt("digest"))?,
                created_by: row.created_by,
                create_time: row.create_time,
                change_description: row.change_description,
                restored_from: row.restored_from,
                state_reason: row.state_reason.and_then(StateReason::from_number),
                storage_class: StorageClass::from_number(row.storage_class)
                    .ok_or_else(|| corrupt("storage class"))?,
            })
        })
        .collect()
}

/// A version to create with the content of another one.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are the columns of the same names")]
pub struct VersionCopy<'a> {
    pub from_file: FileId,
    pub from_version: i32,
    pub file: FileId,
    pub version: i32,
    pub created_by: &'a str,
    pub change_description: &'a str,
    pub restored_from: Option<i32>,
}

/// Inserts a version that references the same blob as another one.
pub async fn copy(tx: &mut TenantTx, copy: &VersionCopy<'_>) -> Result<(), DbError> {
    statement(
        "copy version",
        "INSERT INTO versions (tenant_id, file_id, version, blob_id, content_state, scan_status, mime_type,
            declared_mime_type, media_kind, size_bytes, sha256, created_by, create_time, change_description,
            restored_from)
         SELECT v.tenant_id, $1, $2, v.blob_id, v.content_state, v.scan_status, v.mime_type, v.declared_mime_type,
            v.media_kind, v.size_bytes, v.sha256, $3, app.now(), $4, $5
         FROM versions AS v WHERE v.tenant_id = $6 AND v.file_id = $7 AND v.version = $8",
    )
    .bind::<SqlUuid, _>(copy.file.as_uuid())
    .bind::<Integer, _>(copy.version)
    .bind::<Text, _>(copy.created_by.to_owned())
    .bind::<Text, _>(copy.change_description.to_owned())
    .bind::<Nullable<Integer>, _>(copy.restored_from)
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(copy.from_file.as_uuid())
    .bind::<Integer, _>(copy.from_version)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// The properties of a version that a category restricts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the columns of the same names")]
pub struct LargestVersion {
    pub version: i32,
    pub mime_type: String,
    pub media_kind: MediaKind,
    pub size_bytes: i64,
}

#[derive(QueryableByName)]
struct LargestRow {
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Text)]
    mime_type: String,
    #[diesel(sql_type = SmallInt)]
    media_kind: i16,
    #[diesel(sql_type = BigInt)]
    size_bytes: i64,
}

/// Returns the largest version of each media type among the versions of a file.
///
/// Excludes versions that failed verification, because they can never become current.
pub async fn list_largest_by_type(tx: &mut TenantTx, file: FileId) -> Result<Vec<LargestVersion>, DbError> {
    let rows: Vec<LargestRow> = statement(
        "list largest versions by type",
        // 5: error. A version with a known digest was available before and can become available again.
        "SELECT DISTINCT ON (mime_type, media_kind) version, mime_type, media_kind, size_bytes
         FROM versions WHERE tenant_id = $1 AND file_id = $2
           AND NOT (content_state = 5 AND sha256 IS NULL)
         ORDER BY mime_type, media_kind, size_bytes DESC, version DESC",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .load(tx.connection()?)
    .await?;
    rows.into_iter()
        .map(|row| {
            let LargestRow { version, mime_type, media_kind, size_bytes } = row;
            Ok(LargestVersion { version, mime_type, media_kind: self::media_kind(media_kind)?, size_bytes })
        })
        .collect()
}
