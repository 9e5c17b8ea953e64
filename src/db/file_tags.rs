//! File tags, one row per tag. An array column could not use an index under row-level security.

use std::collections::HashMap;

use diesel::{
    ExpressionMethods as _, QueryDsl as _,
    sql_types::{Array, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::file_tags,
    sql::{OfTenant as _, query, statement},
};
use crate::domain::ids::FileId;

/// Returns the tags of the given files in bytewise order. The caller has already checked that the viewer may
/// see them.
pub async fn list(tx: &mut TenantTx, files: &[FileId]) -> Result<HashMap<FileId, Vec<String>>, DbError> {
    let columns = (file_tags::file_id, file_tags::tag);
    let rows = file_tags::table
        .of(tx.tenant())
        .filter(file_tags::file_id.eq_any(files))
        .order(columns)
        .select(columns);
    let rows: Vec<(FileId, String)> = query("list tags", rows).load(tx.connection()?).await?;
    let mut tags: HashMap<FileId, Vec<String>> = HashMap::new();
    for (file, tag) in rows {
        tags.entry(file).or_default().push(tag);
    }
    Ok(tags)
}

/// Replaces all tags of a file.
pub async fn replace(tx: &mut TenantTx, file: FileId, tags: &[String]) -> Result<(), DbError> {
    delete(tx, file).await?;
    // `unnest` batch.
    statement(
        "insert tags",
        "INSERT INTO file_tags (tenant_id, file_id, tag) SELECT $1, $2, tag FROM unnest($3) AS tag",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<SqlUuid, _>(file)
    .bind::<Array<Text>, _>(tags.to_vec())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Deletes all tags of a file.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    let delete = diesel::delete(file_tags::table.of(tx.tenant()).filter(file_tags::file_id.eq(file)));
    query("delete tags", delete).execute(tx.connection()?).await.map(|_| ())
}
