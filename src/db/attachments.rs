//! Which entities of the caller's world use a file.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, TenantTx, statement::statement};
use crate::domain::{file::EntityRef, ids::FileId};

/// One entity that uses one file.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The file.
    pub file: FileId,
    /// What uses it.
    pub entity: EntityRef,
    /// Who said so.
    pub created_by: String,
}

/// Attaches new files.
pub async fn insert(tx: &mut TenantTx, attachments: &[Attachment]) -> Result<(), DbError> {
    if attachments.is_empty() {
        return Ok(());
    }
    let texts = |pick: fn(&Attachment) -> &str| {
        attachments.iter().map(|attachment| pick(attachment).to_owned()).collect::<Vec<String>>()
    };
    statement(
        "insert attachments",
        "INSERT INTO attachments (tenant_id, file_id, entity_type, entity_id, field, created_by, create_time)
         SELECT {}, n.file_id, n.entity_type, n.entity_id, n.field, n.created_by, app.now()
         FROM unnest({}, {}, {}, {}, {}) AS n (file_id, entity_type, entity_id, field, created_by)",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(
        attachments.iter().map(|attachment| attachment.file.as_uuid()).collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(texts(|attachment| &attachment.entity.entity_type))
    .bind::<Array<Text>, _>(texts(|attachment| &attachment.entity.entity_id))
    .bind::<Array<Text>, _>(texts(|attachment| &attachment.entity.field))
    .bind::<Array<Text>, _>(texts(|attachment| &attachment.created_by))
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

#[derive(QueryableByName)]
struct AttachmentRow {
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
    #[diesel(sql_type = Text)]
    entity_type: String,
    #[diesel(sql_type = Text)]
    entity_id: String,
    #[diesel(sql_type = Text)]
    field: String,
}

/// What uses files that the caller was shown.
pub async fn list(tx: &mut TenantTx, files: &[FileId]) -> Result<HashMap<FileId, Vec<EntityRef>>, DbError> {
    let rows: Vec<AttachmentRow> = statement(
        "list attachments",
        "SELECT file_id, entity_type, entity_id, field FROM attachments
         WHERE tenant_id = {} AND file_id = ANY ({}) ORDER BY file_id, entity_type, entity_id, field",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SqlUuid>, _>(files.iter().map(|file| file.as_uuid()).collect::<Vec<_>>())
    .load(tx.connection()?)
    .await?;
    let mut attachments: HashMap<FileId, Vec<EntityRef>> = HashMap::new();
    for row in rows {
        let entity = EntityRef { entity_type: row.entity_type, entity_id: row.entity_id, field: row.field };
        attachments.entry(FileId::from_uuid(row.file_id)).or_default().push(entity);
    }
    Ok(attachments)
}

/// Detaches a file from everything.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    statement("delete attachments", "DELETE FROM attachments WHERE tenant_id = {} AND file_id = {}")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
