//! The current and the target storage class of blobs. The target is the archive class if every file that
//! references the blob is archived.

use diesel::{
    QueryableByName,
    sql_types::{Bool, Nullable, Text, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx, TenantTx,
    blobs::{IS_MOVABLE, MovableBlob, MovableRow, movable_columns},
    sql::statement,
};
use crate::domain::{
    ids::{BlobId, FileId, TenantId},
    storage_class::StorageClass,
};

/// Whether all files that reference the blob `b` are archived; null if there are none.
const ARE_ARCHIVED: &str = "(
    SELECT bool_and(f.archive_time IS NOT NULL) FROM versions AS v
    JOIN files AS f ON f.tenant_id = v.tenant_id AND f.id = v.file_id
    WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id)";

/// Selects the blobs of a file.
const IS_OF_FILE: &str = "b.tenant_id = $1 AND b.id IN (
    SELECT v.blob_id FROM versions AS v WHERE v.tenant_id = $1 AND v.file_id = $2)";

/// A blob and its target storage class.
#[derive(Debug, Clone)]
pub struct ClassedBlob {
    /// The blob, with its current class.
    pub movable: MovableBlob,
    pub target: StorageClass,
}

#[derive(QueryableByName)]
struct ClassedRow {
    #[diesel(embed)]
    movable: MovableRow,
    #[diesel(sql_type = Bool)]
    are_archived: bool,
}

/// Returns the movable blobs of a file, ordered by id.
///
/// Locks the rows first and reads them in a second statement, which therefore sees the result of concurrent
/// relocations.
pub async fn list_file_blobs(
    tx: &mut SystemTx,
    tenant: TenantId,
    file: FileId,
) -> Result<Vec<ClassedBlob>, DbError> {
    let lock = format!("SELECT FROM blobs AS b WHERE {IS_OF_FILE} ORDER BY b.id FOR NO KEY UPDATE OF b");
    statement("lock blobs of file", lock)
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await?;
    let sql = format!(
        "SELECT {}, {ARE_ARCHIVED} AS are_archived FROM blobs AS b WHERE {IS_OF_FILE} AND {IS_MOVABLE} ORDER BY b.id",
        movable_columns()
    );
    let rows: Vec<ClassedRow> = statement("list blobs of file", sql)
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .load(tx.connection()?)
        .await?;
    let classed = |row: ClassedRow| {
        let target = StorageClass::for_archived(row.are_archived);
        Ok(ClassedBlob { movable: row.movable.into_blob()?, target })
    };
    rows.into_iter().map(classed).collect()
}

#[derive(QueryableByName)]
struct TargetRow {
    #[diesel(sql_type = Nullable<Bool>)]
    are_archived: Option<bool>,
}

/// Returns the target storage class of a blob, or `None` if no file references it.
pub async fn get_target_class(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
) -> Result<Option<StorageClass>, DbError> {
    let sql =
        format!("SELECT {ARE_ARCHIVED} AS are_archived FROM blobs AS b WHERE b.tenant_id = $1 AND b.id = $2");
    let row: Option<TargetRow> = statement("get target class of blob", sql)
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(blob.as_uuid())
        .first(tx.connection()?)
        .await?;
    Ok(row.and_then(|row| row.are_archived).map(StorageClass::for_archived))
}

/// A provider that stores bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLocation {
    pub provider: String,
    /// Whether some of the bytes are in its archive class.
    pub has_archived: bool,
}

#[derive(QueryableByName)]
struct FileLocationRow {
    #[diesel(sql_type = Text)]
    provider: String,
    #[diesel(sql_type = Bool)]
    has_archived: bool,
}

/// Returns the providers that store the bytes of all versions of a file.
pub async fn list_file_locations(tx: &mut TenantTx, file: FileId) -> Result<Vec<FileLocation>, DbError> {
    // 2: archive
    let sql = format!(
        "SELECT b.provider, bool_or(b.storage_class = 2) AS has_archived FROM blobs AS b WHERE {IS_OF_FILE}
         GROUP BY b.provider"
    );
    let rows: Vec<FileLocationRow> = statement("list locations of file", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .load(tx.connection()?)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| FileLocation { provider: row.provider, has_archived: row.has_archived })
        .collect())
}
