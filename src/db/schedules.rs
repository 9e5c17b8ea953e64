//! The schedule of background ticks. A process claims a due tick by advancing its next time, as a
//! compare-and-set by the database's clock, so that exactly one process runs it.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName,
    sql_types::{Array, Double, Interval, Text},
};

use super::{
    DbError, SystemTx,
    schema::schedules,
    sql::{now, query, seconds_u64, statement},
};
use crate::domain::clock::Timestamp;

/// A tick that this process has claimed.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = schedules)]
pub struct ClaimedTick {
    pub name: String,
    /// When the tick is due next.
    pub next_time: Timestamp,
}

/// Claims the due ticks among the given names, and sets the next time of each to `interval_seconds` from now.
/// A tick without a row is due.
pub async fn claim_due(
    tx: &mut SystemTx,
    names: &[&str],
    interval_seconds: u64,
) -> Result<Vec<ClaimedTick>, DbError> {
    // All processes must lock in the same order.
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort_unstable();
    // An `unnest` batch.
    statement(
        "claim due ticks",
        "INSERT INTO schedules (name, next_time, last_time, done_time)
         SELECT name, app.now() + $1, app.now(), app.now() FROM unnest($2) AS n (name)
         ON CONFLICT (name) DO UPDATE SET next_time = excluded.next_time, last_time = excluded.last_time
            WHERE schedules.next_time <= excluded.last_time
         RETURNING name, next_time",
    )
    .bind::<Interval, _>(seconds_u64(interval_seconds))
    .bind::<Array<Text>, _>(names)
    .load(tx.connection()?)
    .await
}

/// Records that a tick ended without an error.
pub async fn record_done(tx: &mut SystemTx, name: &str) -> Result<(), DbError> {
    let done = diesel::update(schedules::table.filter(schedules::name.eq(name)));
    let update = done.set(schedules::done_time.eq(now()));
    query("record end of tick", update).execute(tx.connection()?).await.map(|_| ())
}

/// The age of a tick.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
#[diesel(table_name = schedules)]
pub struct TickAge {
    pub name: String,
    /// The time since the tick last ended without an error, or since it was first claimed, in seconds.
    #[diesel(sql_type = Double)]
    pub age_seconds: f64,
}

/// Returns the ages of those of the given ticks that were claimed before.
pub async fn list_ages(tx: &mut SystemTx, names: &[&str]) -> Result<Vec<TickAge>, DbError> {
    // A number of seconds.
    statement(
        "list ages of ticks",
        "SELECT name, greatest(0, extract(epoch FROM app.now() - done_time))::double precision AS age_seconds
         FROM schedules WHERE name = ANY ($1)",
    )
    .bind::<Array<Text>, _>(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    .load(tx.connection()?)
    .await
}

/// Makes a tick due immediately, because more work is pending. Does nothing if it has been claimed again in
/// the meantime.
pub async fn make_due(tx: &mut SystemTx, tick: &ClaimedTick) -> Result<(), DbError> {
    let unclaimed = schedules::table
        .filter(schedules::name.eq(&tick.name))
        .filter(schedules::next_time.eq(tick.next_time));
    let update = diesel::update(unclaimed).set(schedules::next_time.eq(now()));
    query("make tick due", update).execute(tx.connection()?).await.map(|_| ())
}
