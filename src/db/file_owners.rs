//! The files of an owner, and transfers to another owner.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Integer, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, TenantTx, sql::statement};
use crate::domain::ids::FileId;

#[derive(QueryableByName)]
struct OwnedRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = SmallInt)]
    audience: i16,
}

/// A file that is being transferred to another owner.
#[derive(Debug, Clone, Copy)]
pub struct OwnedFile {
    pub id: FileId,
    /// The current version.
    pub version: i32,
    /// The generated column `files.audience`.
    pub audience: i16,
}

/// Locks up to `limit` files of an owner, including those in the trash, in id order, and returns them.
pub async fn lock_files(tx: &mut TenantTx, owner_id: &str, limit: i64) -> Result<Vec<OwnedFile>, DbError> {
    let tenant = tx.tenant().as_uuid();
    // The inner selects have no order, so that each can use the index of its half.
    let rows: Vec<OwnedRow> = statement(
        "lock files of owner",
        "SELECT id, version, audience FROM files WHERE tenant_id = $1 AND owner_id = $2 AND id IN (
             (SELECT id FROM files WHERE tenant_id = $3 AND owner_id = $4 AND delete_time IS NULL LIMIT $5)
             UNION ALL
             (SELECT id FROM files WHERE tenant_id = $6 AND owner_id = $7 AND delete_time IS NOT NULL LIMIT $8)
             LIMIT $9)
         ORDER BY id FOR UPDATE",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<Text, _>(owner_id.to_owned())
    .bind::<SqlUuid, _>(tenant)
    .bind::<Text, _>(owner_id.to_owned())
    .bind::<BigInt, _>(limit)
    .bind::<SqlUuid, _>(tenant)
    .bind::<Text, _>(owner_id.to_owned())
    .bind::<BigInt, _>(limit)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    let owned = |row: OwnedRow| OwnedFile {
        id: FileId::from_uuid(row.id),
        version: row.version,
        audience: row.audience,
    };
    Ok(rows.into_iter().map(owned).collect())
}

/// Sets the owner of files that the transaction has locked.
pub async fn set_owner(
    tx: &mut TenantTx,
    files: &[FileId],
    owner_id: &str,
    actor_id: &str,
) -> Result<(), DbError> {
    statement(
        "set owner of files",
        "UPDATE files SET owner_id = $1, update_time = app.now(), updated_by = $2, revision = revision + 1
         WHERE tenant_id = $3 AND id = ANY ($4)",
    )
    .bind::<Text, _>(owner_id.to_owned())
    .bind::<Text, _>(actor_id.to_owned())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(files.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

#[derive(QueryableByName)]
struct OwnedSums {
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// Returns the number of files of an owner, including those in the trash, and the total bytes of their
/// current versions.
pub async fn sum_files(tx: &mut TenantTx, owner_id: &str) -> Result<(i64, i64), DbError> {
    let row: OwnedSums = statement(
        "sum files of owner",
        "SELECT count(*) AS count, coalesce(sum(size_bytes), 0)::bigint AS bytes FROM files
         WHERE tenant_id = $1 AND owner_id = $2",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Text, _>(owner_id.to_owned())
    .one(tx.connection()?)
    .await?;
    Ok((row.count, row.bytes))
}
