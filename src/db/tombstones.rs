//! Tombstones of purged files.

use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text, Uuid as SqlUuid};

use super::{DbError, SystemTx, TenantTx, statement::statement};
use crate::domain::file::File;

/// Inserts the tombstone of a file that is being purged. It expires after the given number of days.
pub async fn insert(tx: &mut TenantTx, file: &File, purged_by: &str, days: u32) -> Result<(), DbError> {
    statement(
        "insert tombstone",
        "INSERT INTO tombstones (tenant_id, file_id, name, size_bytes, sha256, purged_by, purge_time, expire_time)
         VALUES ({}, {}, {}, {}, {}, {}, app.now(), app.now() + make_interval(days => {}))",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.id.as_uuid())
    .bind::<Text, _>(file.name.clone())
    .bind::<BigInt, _>(i64::try_from(file.size_bytes).unwrap_or(i64::MAX))
    .bind::<Nullable<Binary>, _>(file.sha256.map(|sha256| sha256.as_bytes().to_vec()))
    .bind::<Text, _>(purged_by.to_owned())
    .bind::<Integer, _>(i32::try_from(days).unwrap_or(i32::MAX))
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Deletes expired tombstones. Returns their number.
pub async fn delete_expired(tx: &mut SystemTx) -> Result<usize, DbError> {
    statement("delete expired tombstones", "DELETE FROM tombstones WHERE expire_time <= app.now()")
        .execute(tx.connection()?)
        .await
}
