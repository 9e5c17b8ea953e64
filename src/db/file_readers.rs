//! Principals that may read a file in addition to its owner and its audience. Each row repeats the sort keys
//! of the file.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Text, Uuid as SqlUuid},
};

use super::{DbError, TenantTx, sql::statement};
use crate::domain::ids::FileId;

/// Updates whether the file is in the trash, in the rows of its readers.
pub async fn set_deleted(tx: &mut TenantTx, file: FileId, is_deleted: bool) -> Result<(), DbError> {
    statement(
        "update trash flag of readers",
        "UPDATE file_readers SET is_deleted = $1 WHERE tenant_id = $2 AND file_id = $3",
    )
    .bind::<Bool, _>(is_deleted)
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Updates the file's name in the rows of its readers.
pub async fn set_name(tx: &mut TenantTx, file: FileId, name: &str) -> Result<(), DbError> {
    statement(
        "update name of readers",
        "UPDATE file_readers SET name = $1 WHERE tenant_id = $2 AND file_id = $3",
    )
    .bind::<Text, _>(name.to_owned())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Updates the file's size in the rows of its readers.
pub async fn set_size(tx: &mut TenantTx, file: FileId, size_bytes: u64) -> Result<(), DbError> {
    statement(
        "update size of readers",
        "UPDATE file_readers SET size_bytes = $1 WHERE tenant_id = $2 AND file_id = $3",
    )
    .bind::<BigInt, _>(i64::try_from(size_bytes).unwrap_or(i64::MAX))
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

#[derive(QueryableByName)]
struct ReaderRow {
    #[diesel(sql_type = Text)]
    principal: String,
}

/// Deletes all readers of a file and returns their principals.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<Vec<String>, DbError> {
    let readers: Vec<ReaderRow> = statement(
        "delete readers",
        "DELETE FROM file_readers WHERE tenant_id = $1 AND file_id = $2 RETURNING principal",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .load(tx.connection()?)
    .await?;
    Ok(readers.into_iter().map(|reader| reader.principal).collect())
}

/// Returns the principals that are readers of a file.
pub async fn list(tx: &mut TenantTx, file: FileId) -> Result<Vec<String>, DbError> {
    let readers: Vec<ReaderRow> = statement(
        "list readers",
        "SELECT principal FROM file_readers WHERE tenant_id = $1 AND file_id = $2 ORDER BY principal",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .load(tx.connection()?)
    .await?;
    Ok(readers.into_iter().map(|reader| reader.principal).collect())
}

/// Adds readers to a file that is not in the trash. Existing readers are left unchanged.
pub async fn insert(tx: &mut TenantTx, file: FileId, principals: &[String]) -> Result<(), DbError> {
    statement(
        "insert readers",
        "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
         SELECT f.tenant_id, principal, f.id, f.create_time, f.name, f.size_bytes
         FROM files AS f, unnest($1) AS principal WHERE f.tenant_id = $2 AND f.id = $3
         ON CONFLICT (tenant_id, file_id, principal) DO NOTHING",
    )
    .bind::<Array<Text>, _>(principals.to_vec())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Deletes the given readers of a file.
pub async fn delete_some(tx: &mut TenantTx, file: FileId, principals: &[String]) -> Result<(), DbError> {
    statement(
        "delete some readers",
        "DELETE FROM file_readers WHERE tenant_id = $1 AND file_id = $2 AND principal = ANY ($3)",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .bind::<Array<Text>, _>(principals.to_vec())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}
