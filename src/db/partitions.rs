//! Creation of upcoming partitions and removal of expired ones, for tables that are partitioned by time.

use diesel::{
    data_types::PgInterval,
    sql_types::{Integer, Text},
};

use super::{
    DbError, SystemTx,
    sql::{days, drop_partitions, hours, now_minus, query, statement},
};

/// A table that is partitioned by time.
#[derive(Debug, Clone, Copy)]
pub struct PartitionedTable {
    table: &'static str,
    period: &'static str,
    periods: i32,
}

/// All such tables, with the period of a partition and the number of periods, from the current one, that must
/// exist.
pub const TABLES: [PartitionedTable; 5] = [
    PartitionedTable { table: "idempotency_keys", period: "1 day", periods: 3 },
    PartitionedTable { table: "audit_entries", period: "1 month", periods: 2 },
    PartitionedTable { table: "access_log", period: "1 month", periods: 2 },
    PartitionedTable { table: "events", period: "1 month", periods: 2 },
    PartitionedTable { table: "finished_jobs", period: "1 day", periods: 3 },
];

/// Creates the upcoming partitions of a table. Fails immediately if another session holds a lock on the
/// table.
pub async fn create_upcoming(tx: &mut SystemTx, table: PartitionedTable) -> Result<(), DbError> {
    // A function without a result.
    statement("create partitions", "SELECT app.create_partitions($1, $2::text::interval, app.now(), $3)")
        .bind::<Text, _>(table.table)
        .bind::<Text, _>(table.period)
        .bind::<Integer, _>(table.periods)
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

/// Drops partitions of events that are older than the given number of days. Returns the number of dropped
/// partitions.
pub async fn drop_expired_events(tx: &mut SystemTx, age_days: u32) -> Result<i32, DbError> {
    drop_expired(tx, "events", PgInterval::from_months(1), days(age_days)).await
}

/// Drops partitions of audit entries that are older than the given number of days. Returns the number of
/// dropped partitions.
pub async fn drop_expired_audit_entries(tx: &mut SystemTx, age_days: u32) -> Result<i32, DbError> {
    drop_expired(tx, "audit_entries", PgInterval::from_months(1), days(age_days)).await
}

/// Drops partitions of the access log that are older than the given number of days. Returns the number of
/// dropped partitions.
pub async fn drop_expired_access_log(tx: &mut SystemTx, age_days: u32) -> Result<i32, DbError> {
    drop_expired(tx, "access_log", PgInterval::from_months(1), days(age_days)).await
}

/// Drops partitions of responses that are older than the given number of hours. Returns the number of dropped
/// partitions.
pub async fn drop_expired_responses(tx: &mut SystemTx, age_hours: u32) -> Result<i32, DbError> {
    drop_expired(tx, "idempotency_keys", days(1), hours(age_hours)).await
}

/// Drops partitions of jobs that finished more than the given number of hours ago. Returns the number of
/// dropped partitions.
pub async fn drop_expired_jobs(tx: &mut SystemTx, age_hours: u32) -> Result<i32, DbError> {
    drop_expired(tx, "finished_jobs", days(1), hours(age_hours)).await
}

async fn drop_expired(
    tx: &mut SystemTx,
    table: &'static str,
    period: PgInterval,
    age: PgInterval,
) -> Result<i32, DbError> {
    let drop = diesel::select(drop_partitions(table, period, now_minus(age)));
    query("drop partitions", drop).one(tx.connection()?).await
}
