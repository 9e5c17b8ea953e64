//! The files of an owner, and transfers to another owner.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName, Selectable,
    dsl::count_star,
    sql_types::{Array, BigInt, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    charged::CHARGED,
    quota_delta::QuotaDelta,
    schema::files,
    sql::{OfTenant as _, coalesce, now, query, sql, statement, sum_of},
};
use crate::domain::ids::FileId;

/// A file that is being transferred to another owner.
#[derive(Debug, Clone, Copy, Queryable, Selectable)]
#[diesel(table_name = files, check_for_backend(diesel::pg::Pg))]
pub struct OwnedFile {
    pub id: FileId,
    /// The current version.
    pub version: i32,
    /// The generated column `files.audience`.
    pub audience: i16,
    /// The revision before the transfer, which increments it.
    pub revision: i64,
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

/// Returns the owner of a file, if it exists and the viewer may see it.
pub async fn get_owner(tx: &mut TenantTx, file: FileId) -> Result<Option<String>, DbError> {
    let owner = files::table.of(tx.tenant()).filter(files::id.eq(file)).select(files::owner_id);
    query("read owner of file", owner).first(tx.connection()?).await
}

#[derive(QueryableByName)]
struct ChargeRow {
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = BigInt)]
    files: i64,
}

/// Returns the usage of those of the files that count against the quota.
pub async fn sum_charge(tx: &mut TenantTx, files: &[FileId]) -> Result<QuotaDelta, DbError> {
    // A subquery of the policy, as in a recalculation of the usage.
    let text = sql!(
        "SELECT coalesce(sum(v.size_bytes), 0)::bigint AS bytes, count(DISTINCT f.id) AS files
         FROM {charged} AND f.id = ANY ($2)",
        charged = CHARGED,
    );
    let row: ChargeRow = statement("sum charge of files", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<Array<SqlUuid>, _>(files.to_vec())
        .one(tx.connection()?)
        .await?;
    Ok(QuotaDelta { used_bytes: row.bytes, file_count: row.files, ..QuotaDelta::default() })
}
