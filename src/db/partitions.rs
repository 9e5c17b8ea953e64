//! Creation of upcoming partitions and removal of expired ones, for tables that are partitioned by time.

use diesel::{
    QueryableByName,
    sql_types::{Integer, Text},
};

use super::{DbError, SystemTx, sql::statement};

/// A table that is partitioned by time.
#[derive(Debug, Clone, Copy)]
pub struct PartitionedTable {
    table: &'static str,
    period: &'static str,
    periods: i32,
}

/// All such tables, with the period of a partition and the number of periods, from the current one, that must
/// exist.
pub const TABLES: [PartitionedTable; 4] = [
    PartitionedTable { table: "idempotency_keys", period: "1 day", periods: 3 },
    PartitionedTable { table: "audit_entries", period: "1 month", periods: 2 },
    PartitionedTable { table: "events", period: "1 month", periods: 2 },
    PartitionedTable { table: "finished_jobs", period: "1 day", periods: 3 },
];

/// Creates the upcoming partitions of a table. Fails immediately if another session holds a lock on the
/// table.
pub async fn create_upcoming(tx: &mut SystemTx, table: PartitionedTable) -> Result<(), DbError> {
    statement("create partitions", "SELECT app.create_partitions($1, $2::text::interval, app.now(), $3)")
        .bind::<Text, _>(table.table)
        .bind::<Text, _>(table.period)
        .bind::<Integer, _>(table.periods)
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

#[derive(QueryableByName)]
struct DroppedRow {
    #[diesel(sql_type = Integer)]
    dropped: i32,
}

/// Drops partitions of events that are older than the given number of days. Returns the number of dropped
/// partitions.
pub async fn drop_expired_events(tx: &mut SystemTx, days: u32) -> Result<i32, DbError> {
    let row: DroppedRow = statement(
        "drop partitions",
        "SELECT app.drop_partitions('events', interval '1 month', app.now() - make_interval(days => $1)) AS dropped",
    )
    .bind::<Integer, _>(i32::try_from(days).unwrap_or(i32::MAX))
    .one(tx.connection()?)
    .await?;
    Ok(row.dropped)
}

/// Drops partitions of responses that are older than the given number of hours. Returns the number of dropped
/// partitions.
pub async fn drop_expired_responses(tx: &mut SystemTx, hours: u32) -> Result<i32, DbError> {
    drop_expired(tx, "idempotency_keys", hours).await
}

/// Drops partitions of jobs that finished more than the given number of hours ago. Returns the number of
/// dropped partitions.
pub async fn drop_expired_jobs(tx: &mut SystemTx, hours: u32) -> Result<i32, DbError> {
    drop_expired(tx, "finished_jobs", hours).await
}

async fn drop_expired(tx: &mut SystemTx, table: &'static str, hours: u32) -> Result<i32, DbError> {
    let row: DroppedRow = statement(
        "drop partitions",
        "SELECT app.drop_partitions($1, interval '1 day', app.now() - make_interval(hours => $2)) AS dropped",
    )
    .bind::<Text, _>(table)
    .bind::<Integer, _>(i32::try_from(hours).unwrap_or(i32::MAX))
    .one(tx.connection()?)
    .await?;
    Ok(row.dropped)
}
