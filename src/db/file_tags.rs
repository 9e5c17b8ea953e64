//! File tags, one row per tag. An array column could not use an index under row-level security.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, TenantTx, sql::statement};
use crate::domain::ids::FileId;

#[derive(QueryableByName)]
struct TagRow {
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
    #[diesel(sql_type = Text)]
    tag: String,
}

/// Returns the tags of the given files in bytewise order. The caller has already checked that the viewer may
/// see them.
pub async fn list(tx: &mut TenantTx, files: &[FileId]) -> Result<HashMap<FileId, Vec<String>>, DbError> {
    let rows: Vec<TagRow> = statement(
        "list tags",
        "SELECT file_id, tag FROM file_tags WHERE tenant_id = $1 AND file_id = ANY ($2) ORDER BY file_id, tag",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(files.iter().map(|file| file.as_uuid()).collect::<Vec<_>>())
    .load(tx.connection()?)
    .await?;
    let mut tags: HashMap<FileId, Vec<String>> = HashMap::new();
    for row in rows {
        tags.entry(FileId::from_uuid(row.file_id)).or_default().push(row.tag);
    }
    Ok(tags)
}

/// Replaces all tags of a file.
pub async fn replace(tx: &mut TenantTx, file: FileId, tags: &[String]) -> Result<(), DbError> {
    delete(tx, file).await?;
    statement(
        "insert tags",
        "INSERT INTO file_tags (tenant_id, file_id, tag) SELECT $1, $2, tag FROM unnest($3) AS tag",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(file.as_uuid())
    .bind::<Array<Text>, _>(tags.to_vec())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Deletes all tags of a file.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    statement("delete tags", "DELETE FROM file_tags WHERE tenant_id = $1 AND file_id = $2")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
