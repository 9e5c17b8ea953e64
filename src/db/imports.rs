//! Imported objects and their files. The rows are inserted by the commit, in `app.commit_uploads`.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Binary, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, TenantTx, sql::statement};
use crate::domain::{clock::Timestamp, digest::Digest, ids::FileId};

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
}

/// Returns the file that was imported from the source with this digest, if any. The file may have been purged
/// since.
pub async fn find_file(tx: &mut TenantTx, source: Digest) -> Result<Option<FileId>, DbError> {
    let row: Option<IdRow> =
        statement("find import", "SELECT file_id FROM imports WHERE tenant_id = $1 AND source_sha256 = $2")
            .bind::<SqlUuid, _>(tx.tenant().as_uuid())
            .bind::<Binary, _>(source.as_bytes().to_vec())
            .first(tx.connection()?)
            .await?;
    Ok(row.map(|row| FileId::from_uuid(row.file_id)))
}

/// An imported object and its file. The file may have been purged since.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are the columns of the same names")]
pub struct ImportRow {
    pub source: String,
    pub source_sha256: Digest,
    pub legacy_id: String,
    pub file_id: FileId,
    pub create_time: Timestamp,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    source: String,
    #[diesel(sql_type = Binary)]
    source_sha256: Vec<u8>,
    #[diesel(sql_type = Text)]
    legacy_id: String,
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    create_time: Timestamp,
}

/// Returns the imports with these source digests, and up to `limit` imports of each legacy id. Ordered by
/// legacy id and file.
pub async fn list_matching(
    tx: &mut TenantTx,
    sources: &[Digest],
    legacy_ids: &[String],
    limit: usize,
) -> Result<Vec<ImportRow>, DbError> {
    const OPERATION: &str = "find imports";
    // The lateral join bounds the index scan per legacy id, however many files have it.
    const SQL: &str =
        "SELECT i.source, i.source_sha256, i.legacy_id, i.file_id, i.create_time FROM imports AS i
            WHERE i.tenant_id = $1 AND i.source_sha256 = ANY ($2)
        UNION
        SELECT i.source, i.source_sha256, i.legacy_id, i.file_id, i.create_time
            FROM unnest($3) AS n (legacy_id) CROSS JOIN LATERAL (
                SELECT * FROM imports AS one WHERE one.tenant_id = $4 AND one.legacy_id = n.legacy_id
                ORDER BY one.file_id LIMIT $5) AS i
        ORDER BY legacy_id, file_id";
    let rows: Vec<Row> = statement(OPERATION, SQL)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<Array<Binary>, _>(sources.iter().map(|source| source.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(legacy_ids.to_vec())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
        .load(tx.connection()?)
        .await?;
    let read = |row: Row| {
        let source_sha256 = Digest::from_slice(&row.source_sha256);
        Ok(ImportRow {
            source: row.source,
            source_sha256: source_sha256.map_err(|_| DbError::corrupt(OPERATION, "source digest"))?,
            legacy_id: row.legacy_id,
            file_id: FileId::from_uuid(row.file_id),
            create_time: row.create_time,
        })
    };
    rows.into_iter().map(read).collect()
}
