//! Partitions of what is kept by time: made ahead of their time, dropped when it is over.

use diesel::{
    QueryableByName,
    sql_types::{Integer, Text},
};

use super::{DbError, SystemTx, statement::statement};

/// The tables, the period of a partition, and how many periods are ready from today on.
const TABLES: [(&str, &str, i32); 3] =
    [("idempotency_keys", "1 day", 3), ("audit_entries", "1 month", 2), ("events", "1 month", 2)];

/// Makes the partitions of the coming periods.
pub async fn create_ahead(tx: &mut SystemTx) -> Result<(), DbError> {
    for (table, period, count) in TABLES {
        statement("create partitions", "SELECT app.create_partitions({}, {}::text::interval, app.now(), {})")
            .bind::<Text, _>(table)
            .bind::<Text, _>(period)
            .bind::<Integer, _>(count)
            .execute(tx.connection()?)
            .await?;
    }
    Ok(())
}

#[derive(QueryableByName)]
struct Dropped {
    #[diesel(sql_type = Integer)]
    dropped: i32,
}

/// Drops stored answers that are older than so many hours; answers how many partitions went.
pub async fn drop_old_answers(tx: &mut SystemTx, hours: u32) -> Result<i32, DbError> {
    let row: Dropped = statement(
        "drop partitions",
        "SELECT app.drop_partitions('idempotency_keys', interval '1 day', app.now() - make_interval(hours => {}))
            AS dropped",
    )
    .bind::<Integer, _>(i32::try_from(hours).unwrap_or(i32::MAX))
    .one(tx.connection()?)
    .await?;
    Ok(row.dropped)
}
