//! Attachments: the external entities that use a file.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, TenantTx, sql::statement};
use crate::domain::{file::EntityRef, ids::FileId};

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

/// Returns the attachments of the given files. The caller has already checked that the viewer may see them.
pub async fn list(tx: &mut TenantTx, files: &[FileId]) -> Result<HashMap<FileId, Vec<EntityRef>>, DbError> {
    let rows: Vec<AttachmentRow> = statement(
        "list attachments",
        "SELECT file_id, entity_type, entity_id, field FROM attachments
         WHERE tenant_id = $1 AND file_id = ANY ($2) ORDER BY file_id, entity_type, entity_id, field",
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

/// Deletes all attachments of a file.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    statement("delete attachments", "DELETE FROM attachments WHERE tenant_id = $1 AND file_id = $2")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}
