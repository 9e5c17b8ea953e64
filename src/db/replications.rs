//! The blobs without a copy at the replica provider, as of the last measurement.

use chrono::Duration;
use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName, Selectable, SelectableHelper as _,
    sql_types::{BigInt, Text},
    upsert::excluded,
};

use super::{
    DbError, SystemTx, blob_replicas,
    schema::replications,
    sql::{now, query, statement},
};
use crate::domain::clock::Timestamp;

/// The number of blobs above which they are counted less often.
const COUNTED_OFTEN_MAX: i64 = 10_000;

/// The blobs without a copy at a replica provider.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = replications, check_for_backend(diesel::pg::Pg))]
pub struct ReplicationLag {
    pub provider: String,
    #[diesel(deserialize_as = i64)]
    pub pending_blob_count: u64,
    #[diesel(deserialize_as = i64)]
    pub pending_bytes: u64,
    /// When the oldest of them that can be copied was created.
    pub oldest_pending_time: Option<Timestamp>,
}

#[derive(QueryableByName)]
struct PendingRow {
    #[diesel(sql_type = BigInt)]
    pending_blob_count: i64,
    #[diesel(sql_type = BigInt)]
    pending_bytes: i64,
}

/// Returns whether the last measurement is old: a minute, or a quarter of an hour if there are many blobs.
pub async fn is_measurement_due(tx: &mut SystemTx, provider: &str) -> Result<bool, DbError> {
    let last = replications::table.filter(replications::provider.eq(provider)).select((
        replications::pending_blob_count,
        replications::measure_time,
        now(),
    ));
    let last: Option<(i64, Timestamp, Timestamp)> =
        query("get last measurement of replication", last).first(tx.connection()?).await?;
    Ok(last.is_none_or(|(pending, measured, now)| {
        let interval = Duration::minutes(if pending > COUNTED_OFTEN_MAX { 15 } else { 1 });
        now - measured >= interval
    }))
}

/// Counts the blobs without a copy that are stored elsewhere than with the replica provider.
pub async fn measure(tx: &mut SystemTx, provider: &str) -> Result<(), DbError> {
    // A setting of the transaction, because the first measurement counts all blobs.
    statement("extend timeout of count", "SELECT set_config('statement_timeout', '10min', true)")
        .execute(tx.connection()?)
        .await?;
    // Two aggregates over one index.
    let pending: PendingRow = statement(
        "measure blobs to replicate",
        "SELECT count(*) AS pending_blob_count, coalesce(sum(size_bytes), 0)::bigint AS pending_bytes
         FROM blobs
         WHERE replica_key IS NULL AND sha256 IS NOT NULL AND delete_after IS NULL AND provider <> $1",
    )
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await?;
    let oldest = blob_replicas::find_oldest_pending(tx, provider).await?;
    let upsert = diesel::insert_into(replications::table)
        .values((
            replications::provider.eq(provider),
            replications::pending_blob_count.eq(pending.pending_blob_count),
            replications::pending_bytes.eq(pending.pending_bytes),
            replications::oldest_pending_time.eq(oldest),
            replications::measure_time.eq(now()),
        ))
        .on_conflict(replications::provider)
        .do_update()
        .set((
            replications::pending_blob_count.eq(excluded(replications::pending_blob_count)),
            replications::pending_bytes.eq(excluded(replications::pending_bytes)),
            replications::oldest_pending_time.eq(excluded(replications::oldest_pending_time)),
            replications::measure_time.eq(excluded(replications::measure_time)),
        ));
    query("record lag of replication", upsert).execute(tx.connection()?).await.map(|_| ())
}

/// Returns the blobs without a copy at a replica provider, and the time of the transaction.
pub async fn find_lag(
    tx: &mut SystemTx,
    provider: &str,
) -> Result<Option<(ReplicationLag, Timestamp)>, DbError> {
    let lag = replications::table
        .filter(replications::provider.eq(provider))
        .select((ReplicationLag::as_select(), now()));
    query("find lag of replication", lag).first(tx.connection()?).await
}
