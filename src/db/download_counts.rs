//! Download counts and last access times of files. They have their own table, because a download must
//! change neither the etag nor the update time of the file.

use std::collections::HashMap;

use diesel::{
    ExpressionMethods as _, QueryDsl as _,
    sql_types::{Array, BigInt, Timestamptz, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx, TenantTx,
    schema::download_counts,
    sql::{OfTenant as _, query, statement},
};
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
    // `unnest` batch.
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
    .bind::<Array<SqlUuid>, _>(deltas.iter().map(|delta| delta.tenant).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(deltas.iter().map(|delta| delta.file).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(
        deltas.iter().map(|delta| i64::try_from(delta.downloads).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
    )
    .bind::<Array<Timestamptz>, _>(deltas.iter().map(|delta| delta.last_access_time).collect::<Vec<_>>())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Returns the counts of the given files. Files without downloads have no entry. The caller has already
/// checked that the viewer may see them.
pub async fn list(tx: &mut TenantTx, files: &[FileId]) -> Result<HashMap<FileId, FileAccess>, DbError> {
    let counts =
        download_counts::table.of(tx.tenant()).filter(download_counts::file_id.eq_any(files)).select((
            download_counts::file_id,
            download_counts::download_count,
            download_counts::last_access_time,
        ));
    let rows: Vec<(FileId, i64, Timestamp)> =
        query("list download counts", counts).load(tx.connection()?).await?;
    let access = |(file, download_count, last_access_time): (FileId, i64, Timestamp)| {
        let download_count = u64::try_from(download_count).unwrap_or_default();
        (file, FileAccess { download_count, last_access_time: Some(last_access_time) })
    };
    Ok(rows.into_iter().map(access).collect())
}

/// Deletes the count of a file that is being purged.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    let delete =
        diesel::delete(download_counts::table.of(tx.tenant()).filter(download_counts::file_id.eq(file)));
    query("delete download count", delete).execute(tx.connection()?).await.map(|_| ())
}
