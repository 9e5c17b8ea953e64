//! Who may read a file besides its owner and its audience, with the sort keys of the file beside each name.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Text, Uuid as SqlUuid},
};

use super::{DbError, TenantTx, statement::statement};
use crate::domain::ids::FileId;

/// Keeps the readers' rows in step with the trash.
pub async fn set_deleted(tx: &mut TenantTx, file: FileId, is_deleted: bool) -> Result<(), DbError> {
    statement("mark readers", "UPDATE file_readers SET is_deleted = {} WHERE tenant_id = {} AND file_id = {}")
        .bind::<Bool, _>(is_deleted)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// Keeps the readers' rows in step with the name of their file.
pub async fn set_name(tx: &mut TenantTx, file: FileId, name: &str) -> Result<(), DbError> {
    statement("rename for readers", "UPDATE file_readers SET name = {} WHERE tenant_id = {} AND file_id = {}")
        .bind::<Text, _>(name.to_owned())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// Keeps the readers' rows in step with the size of their file.
pub async fn set_size(tx: &mut TenantTx, file: FileId, size_bytes: u64) -> Result<(), DbError> {
    statement(
        "resize for readers",
        "UPDATE file_readers SET size_bytes = {} WHERE tenant_id = {} AND file_id = {}",
    )
    .bind::<BigInt, _>(i64::try_from(size_bytes).unwrap_or(i64::MAX))
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

#[derive(QueryableByName)]
struct Reader {
    #[diesel(sql_type = Text)]
    principal: String,
}

/// Removes the readers of a file; answers who they were.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<Vec<String>, DbError> {
    let readers: Vec<Reader> = statement(
        "delete readers",
        "DELETE FROM file_readers WHERE tenant_id = {} AND file_id = {} RETURNING principal",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .load(tx.connection()?)
    .await?;
    Ok(readers.into_iter().map(|reader| reader.principal).collect())
}
