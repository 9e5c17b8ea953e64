//! How often files were downloaded, and when last. Beside the file's row, not in it: a download changes neither etag nor
//! update time.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, statement::statement};
use crate::domain::{
    clock::Timestamp,
    file::FileAccess,
    ids::{FileId, TenantId},
};

/// What came together for one file since the last time it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessGain {
    /// Whose file.
    pub tenant: TenantId,
    /// Which.
    pub file: FileId,
    /// How many downloads more.
    pub downloads: u64,
    /// The last access among them.
    pub last_access_time: Timestamp,
}

/// Adds what came together. The gains must be in the order of (tenant, file), which is the order of locks; what was purged
/// meanwhile is left out.
pub async fn add(tx: &mut SystemTx, gains: &[AccessGain]) -> Result<(), DbError> {
    statement(
        "add to download counts",
        "INSERT INTO download_counts AS c (tenant_id, file_id, download_count, last_access_time)
         SELECT n.tenant_id, n.file_id, n.downloads, n.last_access_time
         FROM unnest({}, {}, {}, {}) WITH ORDINALITY AS n (tenant_id, file_id, downloads, last_access_time, place)
         WHERE EXISTS (SELECT FROM files AS f WHERE f.tenant_id = n.tenant_id AND f.id = n.file_id)
         ORDER BY n.place
         ON CONFLICT (tenant_id, file_id) DO UPDATE
         SET download_count = c.download_count + excluded.download_count,
             last_access_time = greatest(c.last_access_time, excluded.last_access_time)",
    )
    .bind::<Array<SqlUuid>, _>(gains.iter().map(|gain| gain.tenant.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(gains.iter().map(|gain| gain.file.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(
        gains.iter().map(|gain| i64::try_from(gain.downloads).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
    )
    .bind::<Array<Timestamptz>, _>(gains.iter().map(|gain| gain.last_access_time).collect::<Vec<_>>())
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

/// The counts of files that the caller was shown; a file that was never downloaded has none.
pub async fn list(tx: &mut TenantTx, files: &[FileId]) -> Result<HashMap<FileId, FileAccess>, DbError> {
    let rows: Vec<CountRow> = statement(
        "list download counts",
        "SELECT file_id, download_count, last_access_time FROM download_counts
         WHERE tenant_id = {} AND file_id = ANY ({})",
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

/// Forgets the count of a file that is being purged.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    statement("delete download count", "DELETE FROM download_counts WHERE tenant_id = {} AND file_id = {}")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
