//! Partitions of what is kept by time: made ahead of their time, dropped when it is over.

use diesel::{
    QueryableByName,
    sql_types::{Integer, Text},
};

use super::{DbError, SystemTx, statement::statement};

/// What is partitioned by time.
#[derive(Debug, Clone, Copy)]
pub struct Partitioned {
    table: &'static str,
    period: &'static str,
    ahead: i32,
}

/// Every such table, with the period of a partition and how many periods are ready from today on.
pub const TABLES: [Partitioned; 4] = [
    Partitioned { table: "idempotency_keys", period: "1 day", ahead: 3 },
    Partitioned { table: "audit_entries", period: "1 month", ahead: 2 },
    Partitioned { table: "events", period: "1 month", ahead: 2 },
    Partitioned { table: "finished_jobs", period: "1 day", ahead: 3 },
];

/// Makes the partitions of one table's coming periods. Fails at once when somebody holds the table.
pub async fn create_ahead(tx: &mut SystemTx, partitioned: Partitioned) -> Result<(), DbError> {
    statement("create partitions", "SELECT app.create_partitions({}, {}::text::interval, app.now(), {})")
        .bind::<Text, _>(partitioned.table)
        .bind::<Text, _>(partitioned.period)
        .bind::<Integer, _>(partitioned.ahead)
        .execute(tx.connection()?)
        .await
        .map(|_| ())
}

#[derive(QueryableByName)]
struct Dropped {
    #[diesel(sql_type = Integer)]
    dropped: i32,
}

/// Drops events that are older than so many days, whole partitions of them; answers how many partitions went.
pub async fn drop_old_events(tx: &mut SystemTx, days: u32) -> Result<i32, DbError> {
    let row: Dropped = statement(
        "drop partitions",
        "SELECT app.drop_partitions('events', interval '1 month', app.now() - make_interval(days => {})) AS dropped",
    )
    .bind::<Integer, _>(i32::try_from(days).unwrap_or(i32::MAX))
    .one(tx.connection()?)
    .await?;
    Ok(row.dropped)
}

/// Drops stored answers that are older than so many hours; answers how many partitions went.
pub async fn drop_old_answers(tx: &mut SystemTx, hours: u32) -> Result<i32, DbError> {
    drop_old(tx, "idempotency_keys", hours).await
}

/// Forgets jobs that ended more than so many hours ago; answers how many partitions went.
pub async fn drop_old_jobs(tx: &mut SystemTx, hours: u32) -> Result<i32, DbError> {
    drop_old(tx, "finished_jobs", hours).await
}

async fn drop_old(tx: &mut SystemTx, table: &'static str, hours: u32) -> Result<i32, DbError> {
    let row: Dropped = statement(
        "drop partitions",
        "SELECT app.drop_partitions({}, interval '1 day', app.now() - make_interval(hours => {})) AS dropped",
    )
    .bind::<Text, _>(table)
    .bind::<Integer, _>(i32::try_from(hours).unwrap_or(i32::MAX))
    .one(tx.connection()?)
    .await?;
    Ok(row.dropped)
}
