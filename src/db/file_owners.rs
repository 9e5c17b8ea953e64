//! The files of an owner, and transfers to another owner.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName,
    dsl::count_star,
    sql_types::{BigInt, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::files,
    sql::{OfTenant as _, coalesce, now, query, statement, sum_of},
};
use crate::domain::ids::FileId;

/// A file that is being transferred to another owner.
#[derive(Debug, Clone, Copy, QueryableByName)]
#[diesel(table_name = files)]
pub struct OwnedFile {
    pub id: FileId,
    /// The current version.
    pub version: i32,
    /// The generated column `files.audience`.
    pub audience: i16,
}

/// Locks up to `limit` files of an owner, including those in the trash, in id order, and returns them.
pub async fn lock_files(tx: &mut TenantTx, owner_id: &str, limit: i64) -> Result<Vec<OwnedFile>, DbError> {
    // A subquery of two limited scans. They have no order, so that each can use the index of its half.
    statement(
        "lock files of owner",
        "SELECT id, version, audience FROM files WHERE tenant_id = $1 AND owner_id = $2 AND id IN (
             (SELECT id FROM files WHERE tenant_id = $1 AND owner_id = $2 AND delete_time IS NULL LIMIT $3)
             UNION ALL
             (SELECT id FROM files WHERE tenant_id = $1 AND owner_id = $2 AND delete_time IS NOT NULL LIMIT $3)
             LIMIT $3)
         ORDER BY id FOR UPDATE",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Text, _>(owner_id.to_owned())
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await
}

/// Sets the owner of files that the transaction has locked.
pub async fn set_owner(
    tx: &mut TenantTx,
    files: &[FileId],
    owner_id: &str,
    actor_id: &str,
) -> Result<(), DbError> {
    let update = diesel::update(files::table.of(tx.tenant()).filter(files::id.eq_any(files))).set((
        files::owner_id.eq(owner_id),
        files::update_time.eq(now()),
        files::updated_by.eq(actor_id),
        files::revision.eq(files::revision + 1),
    ));
    query("set owner of files", update).execute(tx.connection()?).await.map(|_| ())
}

/// Returns the number of files of an owner, including those in the trash, and the total bytes of their
/// current versions.
pub async fn sum_files(tx: &mut TenantTx, owner_id: &str) -> Result<(i64, i64), DbError> {
    let sums = files::table
        .of(tx.tenant())
        .filter(files::owner_id.eq(owner_id))
        .select((count_star(), coalesce(sum_of(files::size_bytes), 0_i64)));
    query("sum files of owner", sums).one(tx.connection()?).await
}
