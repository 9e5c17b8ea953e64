//! Counts the blobs that are marked missing or damaged, for the metrics of workers. A command that marks a blob is no
//! process whose metrics are read.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Text},
};

use super::{DbError, SystemTx, sql::statement};

/// The number of versions in state ERROR that a count reads.
const VERSIONS_MAX: i64 = 10_000;

/// The missing and damaged blobs of one provider.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct DamagedBlobs {
    #[diesel(sql_type = Text)]
    pub provider: String,
    #[diesel(sql_type = BigInt)]
    pub blob_count: i64,
}

/// Counts the missing and damaged blobs of each provider that has some, among the first 10,000 versions in state ERROR.
/// A blob whose bytes were never verified is not counted: its upload failed.
pub async fn count_damaged(tx: &mut SystemTx) -> Result<Vec<DamagedBlobs>, DbError> {
    // An aggregate over a bounded part of an index.
    statement(
        "count damaged blobs",
        "SELECT b.provider, count(*) AS blob_count FROM (
             SELECT DISTINCT tenant_id, blob_id FROM (
                 SELECT tenant_id, blob_id FROM versions WHERE state_reason IS NOT NULL LIMIT $1) AS marked
         ) AS lost
         JOIN blobs AS b ON b.tenant_id = lost.tenant_id AND b.id = lost.blob_id
         WHERE b.sha256 IS NOT NULL GROUP BY b.provider",
    )
    .bind::<BigInt, _>(VERSIONS_MAX)
    .load(tx.connection()?)
    .await
}
