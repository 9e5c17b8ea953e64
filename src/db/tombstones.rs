//! Tombstones of purged files.

use diesel::ExpressionMethods as _;

use super::{
    DbError, SystemTx, TenantTx,
    schema::tombstones,
    sql::{AcrossTenants as _, days, now, now_plus, query},
};
use crate::domain::file::File;

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

/// Deletes expired tombstones. Returns their number.
pub async fn delete_expired(tx: &mut SystemTx) -> Result<usize, DbError> {
    let expired =
        diesel::QueryDsl::filter(tombstones::table.across_tenants(), tombstones::expire_time.le(now()));
    query("delete expired tombstones", diesel::delete(expired)).execute(tx.connection()?).await
}
