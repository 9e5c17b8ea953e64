//! Copies of files.

use diesel::sql_types::{Integer, SmallInt, Text, Uuid as SqlUuid};

use super::{
    DbError, TenantTx,
    files::{COLUMNS, FileRow},
    sql::statement,
};
use crate::domain::{
    file::{File, Visibility},
    ids::FileId,
};

/// A copy of a file, with the values that differ from its source.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are the columns of the same names")]
pub struct FileCopy<'a> {
    pub source: FileId,
    pub source_version: i32,
    pub id: FileId,
    pub owner_id: &'a str,
    pub name: &'a str,
    pub category: &'a str,
    pub visibility: Visibility,
}

/// Inserts a file with the record of another file and the content of one of its versions.
///
/// The caller must then copy the version and the tags.
pub async fn insert(tx: &mut TenantTx, copy: &FileCopy<'_>) -> Result<File, DbError> {
    let sql = format!(
        "INSERT INTO files AS f (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
            description, metadata, visibility, version, content_state, scan_status, mime_type, declared_mime_type,
            media_kind, size_bytes, sha256, create_time, update_time)
         SELECT source.tenant_id, n.id, n.owner_id, n.owner_id, n.owner_id, n.name, n.name,
            n.category, source.title, source.description, source.metadata, n.visibility, 1, v.content_state,
            v.scan_status, v.mime_type, v.declared_mime_type, v.media_kind, v.size_bytes, v.sha256, app.now(), app.now()
         FROM (VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::smallint))
                AS n (id, owner_id, name, category, visibility),
            files AS source JOIN versions AS v ON v.tenant_id = source.tenant_id AND v.file_id = source.id
         WHERE source.tenant_id = $6 AND source.id = $7 AND v.version = $8 RETURNING {COLUMNS}"
    );
    let row: FileRow = statement("copy file", sql)
        .bind::<SqlUuid, _>(copy.id.as_uuid())
        .bind::<Text, _>(copy.owner_id.to_owned())
        .bind::<Text, _>(copy.name.to_owned())
        .bind::<Text, _>(copy.category.to_owned())
        .bind::<SmallInt, _>(copy.visibility.number())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(copy.source.as_uuid())
        .bind::<Integer, _>(copy.source_version)
        .one(tx.connection()?)
        .await?;
    row.into_file()
}

/// Copies the tags of the source.
pub async fn insert_tags(tx: &mut TenantTx, copy: &FileCopy<'_>) -> Result<(), DbError> {
    statement(
        "copy tags",
        "INSERT INTO file_tags (tenant_id, file_id, tag)
         SELECT tenant_id, $1, tag FROM file_tags WHERE tenant_id = $2 AND file_id = $3",
    )
    .bind::<SqlUuid, _>(copy.id.as_uuid())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(copy.source.as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}
