//! Copies of files.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, Insertable as _, IntoSql as _, JoinOnDsl as _,
    QueryDsl as _, SelectableHelper as _,
    sql_types::{Integer, SmallInt, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    file_rows::FileRow,
    schema::{file_tags, files, versions},
    sql::{OfTenant as _, now, query},
};
use crate::domain::{
    file::{File, Visibility},
    ids::FileId,
};

/// A copy of a file, with the values that differ from its source.
#[derive(Debug)]
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
    let insert = files::table
        .of(tx.tenant())
        .inner_join(
            versions::table.on(versions::tenant_id.eq(files::tenant_id).and(versions::file_id.eq(files::id))),
        )
        .filter(files::id.eq(copy.source))
        .filter(versions::version.eq(copy.source_version))
        .select((
            files::tenant_id,
            copy.id.into_sql::<SqlUuid>(),
            copy.owner_id.into_sql::<Text>(),
            copy.owner_id.into_sql::<Text>(),
            copy.owner_id.into_sql::<Text>(),
            copy.name.into_sql::<Text>(),
            copy.name.into_sql::<Text>(),
            copy.category.into_sql::<Text>(),
            files::title,
            files::description,
            files::metadata,
            copy.visibility.into_sql::<SmallInt>(),
            1.into_sql::<Integer>(),
            versions::content_state,
            versions::scan_status,
            versions::mime_type,
            versions::declared_mime_type,
            versions::media_kind,
            versions::size_bytes,
            versions::sha256,
            now(),
            now(),
        ))
        .insert_into(files::table)
        .into_columns((
            files::tenant_id,
            files::id,
            files::owner_id,
            files::created_by,
            files::updated_by,
            files::name,
            files::original_name,
            files::category,
            files::title,
            files::description,
            files::metadata,
            files::visibility,
            files::version,
            files::content_state,
            files::scan_status,
            files::mime_type,
            files::declared_mime_type,
            files::media_kind,
            files::size_bytes,
            files::sha256,
            files::create_time,
            files::update_time,
        ))
        .returning(FileRow::as_returning());
    let row: FileRow = query("copy file", insert).one(tx.connection()?).await?;
    Ok(row.into_file())
}

/// Copies the tags of the source.
pub async fn insert_tags(tx: &mut TenantTx, copy: &FileCopy<'_>) -> Result<(), DbError> {
    let insert = file_tags::table
        .of(tx.tenant())
        .filter(file_tags::file_id.eq(copy.source))
        .select((file_tags::tenant_id, copy.id.into_sql::<SqlUuid>(), file_tags::tag))
        .insert_into(file_tags::table)
        .into_columns((file_tags::tenant_id, file_tags::file_id, file_tags::tag));
    query("copy tags", insert).execute(tx.connection()?).await.map(|_| ())
}
