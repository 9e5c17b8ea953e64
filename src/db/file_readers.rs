//! Who may read a file besides its owner and its audience, with the sort keys of the file beside each name.

use diesel::sql_types::{Array, BigInt, Bool, Text, Uuid as SqlUuid};

use super::{DbError, TenantTx, statement::statement};
use crate::domain::{file::File, ids::FileId};

/// Lets principals read new files.
pub async fn insert(tx: &mut TenantTx, readers: &[(&File, String)]) -> Result<(), DbError> {
    if readers.is_empty() {
        return Ok(());
    }
    statement(
        "insert readers",
        "INSERT INTO file_readers (tenant_id, principal, file_id, create_time, name, size_bytes)
         SELECT {}, n.principal, n.file_id, app.now(), n.name, n.size_bytes
         FROM unnest({}, {}, {}, {}) AS n (principal, file_id, name, size_bytes)",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<Text>, _>(readers.iter().map(|(_, principal)| principal.clone()).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(readers.iter().map(|(file, _)| file.id.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(readers.iter().map(|(file, _)| file.name.clone()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(
        readers
            .iter()
            .map(|(file, _)| i64::try_from(file.size_bytes).unwrap_or(i64::MAX))
            .collect::<Vec<_>>(),
    )
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

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

/// Removes the readers of a file.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    statement("delete readers", "DELETE FROM file_readers WHERE tenant_id = {} AND file_id = {}")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
