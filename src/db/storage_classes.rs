//! In which class of storage the bytes of files are, and in which they are to be: that of the archive when every file that
//! stands on them is archived.

use diesel::{
    QueryableByName,
    sql_types::{Bool, Nullable, Text, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx, TenantTx,
    blobs::{IS_MOVABLE, MovableBlob, MovableRow, movable_columns},
    statement::statement,
};
use crate::domain::{
    ids::{BlobId, FileId, TenantId},
    storage_class::StorageClass,
};

/// Whether every file that stands on the blob b is archived; null where there is none.
const ARE_ARCHIVED: &str = "(
    SELECT bool_and(f.archive_time IS NOT NULL) FROM versions AS v
    JOIN files AS f ON f.tenant_id = v.tenant_id AND f.id = v.file_id
    WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id)";

/// The blobs of a file.
const OF_FILE: &str = "b.tenant_id = {} AND b.id IN (
    SELECT v.blob_id FROM versions AS v WHERE v.tenant_id = {} AND v.file_id = {})";

/// A blob of a file, and the class that it is to have.
#[derive(Debug, Clone)]
pub struct ClassedBlob {
    /// The blob, with the class that it has.
    pub movable: MovableBlob,
    /// The class that it is to have.
    pub wanted: StorageClass,
}

#[derive(QueryableByName)]
struct ClassedRow {
    #[diesel(embed)]
    movable: MovableRow,
    #[diesel(sql_type = Bool)]
    are_archived: bool,
}

/// The blobs of a file that can be moved, in the order of their ids.
///
/// Their rows are locked first, and asked about in a statement of their own: whoever is about to point one of them elsewhere is
/// waited for, so that what this answers is not older than that.
pub async fn of_file(tx: &mut SystemTx, tenant: TenantId, file: FileId) -> Result<Vec<ClassedBlob>, DbError> {
    let lock = format!("SELECT FROM blobs AS b WHERE {OF_FILE} ORDER BY b.id FOR NO KEY UPDATE OF b");
    statement("lock blobs of file", lock)
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await?;
    let sql = format!(
        "SELECT {}, {ARE_ARCHIVED} AS are_archived FROM blobs AS b WHERE {OF_FILE} AND {IS_MOVABLE} ORDER BY b.id",
        movable_columns()
    );
    let rows: Vec<ClassedRow> = statement("list blobs of file", sql)
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .load(tx.connection()?)
        .await?;
    let classed = |row: ClassedRow| {
        let wanted = StorageClass::of_archived(row.are_archived);
        Ok(ClassedBlob { movable: row.movable.read()?, wanted })
    };
    rows.into_iter().map(classed).collect()
}

#[derive(QueryableByName)]
struct WantedRow {
    #[diesel(sql_type = Nullable<Bool>)]
    are_archived: Option<bool>,
}

/// The class that a blob is to have; none where nothing stands on it.
pub async fn wanted(
    tx: &mut SystemTx,
    tenant: TenantId,
    blob: BlobId,
) -> Result<Option<StorageClass>, DbError> {
    let sql = format!(
        "SELECT {ARE_ARCHIVED} AS are_archived FROM blobs AS b WHERE b.tenant_id = {{}} AND b.id = {{}}"
    );
    let row: Option<WantedRow> = statement("ask for class of blob", sql)
        .bind::<SqlUuid, _>(tenant.as_uuid())
        .bind::<SqlUuid, _>(blob.as_uuid())
        .first(tx.connection()?)
        .await?;
    Ok(row.and_then(|row| row.are_archived).map(StorageClass::of_archived))
}

/// Where bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The provider.
    pub provider: String,
    /// Whether some of them are in its archive class.
    pub has_archived: bool,
}

#[derive(QueryableByName)]
struct PlaceRow {
    #[diesel(sql_type = Text)]
    provider: String,
    #[diesel(sql_type = Bool)]
    has_archived: bool,
}

/// Where the bytes of all versions of a file are.
pub async fn places(tx: &mut TenantTx, file: FileId) -> Result<Vec<Place>, DbError> {
    // 2: archive
    let sql = format!(
        "SELECT b.provider, bool_or(b.storage_class = 2) AS has_archived FROM blobs AS b WHERE {OF_FILE}
         GROUP BY b.provider"
    );
    let rows: Vec<PlaceRow> = statement("find places of file", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .load(tx.connection()?)
        .await?;
    Ok(rows.into_iter().map(|row| Place { provider: row.provider, has_archived: row.has_archived }).collect())
}
