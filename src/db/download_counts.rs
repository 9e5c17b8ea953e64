//! Download counts and last access times of files. They have their own table, because a download must
//! change neither the etag nor the update time of the file.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, sql::statement};
use crate::domain::{
    clock::Timestamp,
    file::FileAccess,
    ids::{FileId, TenantId},
};

/// The downloads of one file since its counts were last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadDelta {
    pub tenant: TenantId,
    pub file: FileId,
    /// The number of downloads to add.
    pub downloads: u64,
    /// The time of the last of them.
    pub last_access_time: Timestamp,
}

/// Adds downloads to the counts. Skips files that have been purged.
///
/// The deltas must be sorted by (tenant, file), which is the lock order.
pub async fn add(tx: &mut SystemTx, deltas: &[DownloadDelta]) -> Result<(), DbError> {
    statement(
        "add to download counts",
        "INSERT INTO download_counts AS c (tenant_id, file_id, download_count, last_access_time)
         SELECT n.tenant_id, n.file_id, n.downloads, n.last_access_time
         FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS n (tenant_id, file_id, downloads, last_access_time, place)
         WHERE EXISTS (SELECT FROM files AS f WHERE f.tenant_id = n.tenant_id AND f.id = n.file_id)
         ORDER BY n.place
         ON CONFLICT (tenant_id, file_id) DO UPDATE
         SET download_count = c.download_count + excluded.download_count,
             last_access_time = greatest(c.last_access_time, excluded.last_access_time)",
    )
    .bind::<Array<SqlUuid>, _>(deltas.iter().map(|delta| delta.tenant.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(deltas.iter().map(|delta| delta.file.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(
        deltas.iter().map(|delta| i64::try_from(delta.downloads).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
    )
    .bind::<Array<Timestamptz>, _>(deltas.iter().map(|delta| delta.last_access_time).collect::<Vec<_>>())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
    #[diesel(sql_type = BigInt)]
    download_count: i64,
    #[diesel(sql_type = Timestamptz)]
    last_access_time: Timestamp,
}

/// Returns the counts of the given files. Files without downloads have no entry. The caller has already
/// checked that the viewer may see them.
pub async fn list(tx: &mut TenantTx, files: &[FileId]) -> Result<HashMap<FileId, FileAccess>, DbError> {
    let rows: Vec<CountRow> = statement(
        "list download counts",
        "SELECT file_id, download_count, last_access_time FROM download_counts
         WHERE tenant_id = $1 AND file_id = ANY ($2)",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(files.iter().map(|file| file.as_uuid()).collect::<Vec<_>>())
    .load(tx.connection()?)
    .await?;
    let access = |row: CountRow| {
        let download_count = u64::try_from(row.download_count).unwrap_or_default();
        let access = FileAccess { download_count, last_access_time: Some(row.last_access_time) };
        (FileId::from_uuid(row.file_id), access)
    };
    Ok(rows.into_iter().map(access).collect())
}

/// Deletes the count of a file that is being purged.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    statement("delete download count", "DELETE FROM download_counts WHERE tenant_id = $1 AND file_id = $2")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
