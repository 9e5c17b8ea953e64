//! Principals that may read a file in addition to its owner and its audience. Each row repeats the sort keys
//! of the file.

use diesel::{
    ExpressionMethods as _, QueryDsl as _,
    sql_types::{Array, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::file_readers,
    sql::{OfTenant as _, query, statement},
};
use crate::domain::ids::FileId;

/// Updates whether the file is in the trash, in the rows of its readers.
pub async fn set_deleted(tx: &mut TenantTx, file: FileId, is_deleted: bool) -> Result<(), DbError> {
    let update = diesel::update(file_readers::table.of(tx.tenant()).filter(file_readers::file_id.eq(file)))
        .set(file_readers::is_deleted.eq(is_deleted));
    query("update trash flag of readers", update).execute(tx.connection()?).await.map(|_| ())
}

/// Updates the file's name in the rows of its readers.
pub async fn set_name(tx: &mut TenantTx, file: FileId, name: &str) -> Result<(), DbError> {
    let update = diesel::update(file_readers::table.of(tx.tenant()).filter(file_readers::file_id.eq(file)))
        .set(file_readers::name.eq(name));
    query("update name of readers", update).execute(tx.connection()?).await.map(|_| ())
}

/// Updates the file's size in the rows of its readers.
pub async fn set_size(tx: &mut TenantTx, file: FileId, size_bytes: u64) -> Result<(), DbError> {
    let size_bytes = i64::try_from(size_bytes).unwrap_or(i64::MAX);
    let update = diesel::update(file_readers::table.of(tx.tenant()).filter(file_readers::file_id.eq(file)))
        .set(file_readers::size_bytes.eq(size_bytes));
    query("update size of readers", update).execute(tx.connection()?).await.map(|_| ())
}

/// Deletes all readers of a file and returns their principals.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<Vec<String>, DbError> {
    let delete = diesel::delete(file_readers::table.of(tx.tenant()).filter(file_readers::file_id.eq(file)))
        .returning(file_readers::principal);
    query("delete readers", delete).load(tx.connection()?).await
}

/// Returns the principals that are readers of a file.
pub async fn list(tx: &mut TenantTx, file: FileId) -> Result<Vec<String>, DbError> {
    let readers = file_readers::table
        .of(tx.tenant())
        .filter(file_readers::file_id.eq(file))
        .order(file_readers::principal)
        .select(file_readers::principal);
    query("list readers", readers).load(tx.connection()?).await
}

/// Adds readers to a file that is not in the trash. Existing readers are left unchanged.
pub async fn insert(tx: &mut TenantTx, file: FileId, principals: &[String]) -> Result<(), DbError> {
    // `unnest` batch.
    statement(
        "insert readers",
        "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
         SELECT f.tenant_id, principal, f.id, f.create_time, f.name, f.size_bytes
         FROM files AS f, unnest($1) AS principal WHERE f.tenant_id = $2 AND f.id = $3
         ON CONFLICT (tenant_id, file_id, principal) DO NOTHING",
    )
    .bind::<Array<Text>, _>(principals.to_vec())
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<SqlUuid, _>(file)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Deletes the given readers of a file.
pub async fn delete_some(tx: &mut TenantTx, file: FileId, principals: &[String]) -> Result<(), DbError> {
    let readers = file_readers::table
        .of(tx.tenant())
        .filter(file_readers::file_id.eq(file))
        .filter(file_readers::principal.eq_any(principals));
    query("delete some readers", diesel::delete(readers)).execute(tx.connection()?).await.map(|_| ())
}
