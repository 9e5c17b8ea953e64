//! Imported objects and their files. The rows are inserted by the commit, in `app.commit_uploads`.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName,
    sql_types::{Array, BigInt, Binary, Bool, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::imports,
    sql::{OfTenant as _, query, statement},
};
use crate::domain::{clock::Timestamp, digest::Digest, ids::FileId};

/// Returns the file that was imported from the source with this digest, if any. The file may have been purged
/// since.
pub async fn find_file(tx: &mut TenantTx, source: Digest) -> Result<Option<FileId>, DbError> {
    let file =
        imports::table.of(tx.tenant()).filter(imports::source_sha256.eq(source)).select(imports::file_id);
    query("find import", file).first(tx.connection()?).await
}

/// An imported object and its file. The file may have been purged since.
#[derive(Debug, QueryableByName)]
#[diesel(table_name = imports)]
pub struct ImportRow {
    pub source: String,
    pub source_sha256: Digest,
    pub legacy_id: String,
    pub file_id: FileId,
    pub create_time: Timestamp,
}

/// Returns the imports with these source digests, and up to `limit` imports of each legacy id, whose files are
/// visible to the viewer. Ordered by legacy id and file. Files in the trash are included if `is_deleted_shown`.
pub async fn list_matching(
    tx: &mut TenantTx,
    sources: &[Digest],
    legacy_ids: &[String],
    limit: usize,
    is_deleted_shown: bool,
) -> Result<Vec<ImportRow>, DbError> {
    // The lateral join reads each legacy id by an index. Hidden files do not count against the limit, so that
    // nobody can find out by it whether there are any: row-level security hides them in the subquery.
    statement(
        "find imports",
        "SELECT i.source, i.source_sha256, i.legacy_id, i.file_id, i.create_time FROM imports AS i
            WHERE i.tenant_id = $1 AND i.source_sha256 = ANY ($2)
        UNION
        SELECT i.source, i.source_sha256, i.legacy_id, i.file_id, i.create_time
            FROM unnest($3) AS n (legacy_id) CROSS JOIN LATERAL (
                SELECT * FROM imports AS one WHERE one.tenant_id = $1 AND one.legacy_id = n.legacy_id
                  AND EXISTS (SELECT FROM files AS f WHERE f.tenant_id = $1 AND f.id = one.file_id
                              AND ($5 OR f.delete_time IS NULL))
                ORDER BY one.file_id LIMIT $4) AS i
        ORDER BY legacy_id, file_id",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Array<Binary>, _>(sources.to_vec())
    .bind::<Array<Text>, _>(legacy_ids.to_vec())
    .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind::<Bool, _>(is_deleted_shown)
    .load(tx.connection()?)
    .await
}
