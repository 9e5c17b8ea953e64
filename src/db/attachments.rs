//! Attachments: the external entities that use a file.

use std::collections::HashMap;

use diesel::{ExpressionMethods as _, QueryDsl as _};

use super::{
    DbError, TenantTx,
    schema::attachments,
    sql::{OfTenant as _, query},
};
use crate::domain::{file::EntityRef, ids::FileId};

/// Returns the attachments of the given files. The caller has already checked that the viewer may see them.
pub async fn list(tx: &mut TenantTx, files: &[FileId]) -> Result<HashMap<FileId, Vec<EntityRef>>, DbError> {
    let columns =
        (attachments::file_id, attachments::entity_type, attachments::entity_id, attachments::field);
    let rows = attachments::table
        .of(tx.tenant())
        .filter(attachments::file_id.eq_any(files))
        .order(columns)
        .select(columns);
    let rows: Vec<(FileId, String, String, String)> =
        query("list attachments", rows).load(tx.connection()?).await?;
    let mut attachments: HashMap<FileId, Vec<EntityRef>> = HashMap::new();
    for (file, entity_type, entity_id, field) in rows {
        attachments.entry(file).or_default().push(EntityRef { entity_type, entity_id, field });
    }
    Ok(attachments)
}

/// Deletes all attachments of a file.
pub async fn delete(tx: &mut TenantTx, file: FileId) -> Result<(), DbError> {
    let delete = diesel::delete(attachments::table.of(tx.tenant()).filter(attachments::file_id.eq(file)));
    query("delete attachments", delete).execute(tx.connection()?).await.map(|_| ())
}
