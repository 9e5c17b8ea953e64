//! Tombstones of purged files.

use diesel::{ExpressionMethods as _, QueryDsl as _};

use super::{
    DbError, SystemTx, TenantTx,
    schema::tombstones,
    sql::{AcrossTenants as _, OfTenant as _, days, now, now_plus, query},
};
use crate::domain::{file::File, ids::FileId};

/// Inserts the tombstone of a file that is being purged. It expires after the given number of days.
pub async fn insert(tx: &mut TenantTx, file: &File, purged_by: &str, days_kept: u32) -> Result<(), DbError> {
    let insert = diesel::insert_into(tombstones::table).values((
        tombstones::tenant_id.eq(tx.tenant()),
        tombstones::file_id.eq(file.id),
        tombstones::name.eq(&file.name),
        tombstones::size_bytes.eq(i64::try_from(file.size_bytes).unwrap_or(i64::MAX)),
        tombstones::sha256.eq(file.sha256),
        tombstones::purged_by.eq(purged_by),
        tombstones::purge_time.eq(now()),
        tombstones::expire_time.eq(now_plus(days(days_kept))),
    ));
    query("insert tombstone", insert).execute(tx.connection()?).await.map(|_| ())
}

/// Returns those of these files that were purged and whose tombstone has not expired.
pub async fn list_purged(tx: &mut TenantTx, ids: &[FileId]) -> Result<Vec<FileId>, DbError> {
    let purged = tombstones::table
        .of(tx.tenant())
        .filter(tombstones::file_id.eq_any(ids.to_vec()))
        .select(tombstones::file_id);
    query("list tombstones", purged).load(tx.connection()?).await
}

/// Deletes expired tombstones. Returns their number.
pub async fn delete_expired(tx: &mut SystemTx) -> Result<usize, DbError> {
    let expired = tombstones::table.across_tenants().filter(tombstones::expire_time.le(now()));
    query("delete expired tombstones", diesel::delete(expired)).execute(tx.connection()?).await
}
