//! Which file a foreign object became. The rows are written by the commit, in `app.commit_uploads`.

use diesel::{
    QueryableByName,
    sql_types::{Binary, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, TenantTx, statement::statement};
use crate::domain::{digest::Digest, ids::FileId};

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
}

/// The file that the object with this digest of its source became, if it was imported. The file may be gone since.
pub async fn find(tx: &mut TenantTx, source: Digest) -> Result<Option<FileId>, DbError> {
    let row: Option<Row> =
        statement("find import", "SELECT file_id FROM imports WHERE tenant_id = {} AND source_sha256 = {}")
            .bind::<SqlUuid, _>(tx.tenant().as_uuid())
            .bind::<Binary, _>(source.as_bytes().to_vec())
            .first(tx.connection()?)
            .await?;
    Ok(row.map(|row| FileId::from_uuid(row.file_id)))
}
