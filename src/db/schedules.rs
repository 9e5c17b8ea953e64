//! The schedule of background ticks. A replica claims a due tick by advancing its next time, as a
//! compare-and-set by the database's clock, so that exactly one replica runs it.

use diesel::{
    QueryableByName,
    sql_types::{Array, Double, Text, Timestamptz},
};

use super::{DbError, SystemTx, sql::statement, sweeps::to_interval_seconds};
use crate::domain::clock::Timestamp;

/// A tick that this replica has claimed.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct ClaimedTick {
    #[diesel(sql_type = Text)]
    pub name: String,
    /// When the tick is due next.
    #[diesel(sql_type = Timestamptz)]
    pub next_time: Timestamp,
}

/// Claims the due ticks among the given names, and sets the next time of each to `interval_seconds` from now.
/// A tick without a row is due.
pub async fn claim_due(
    tx: &mut SystemTx,
    names: &[&str],
    interval_seconds: u64,
) -> Result<Vec<ClaimedTick>, DbError> {
    // All replicas must lock in the same order.
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort_unstable();
    statement(
        "claim due ticks",
        "INSERT INTO schedules (name, next_time, last_time)
         SELECT name, app.now() + make_interval(secs => $1), app.now() FROM unnest($2) AS n (name)
         ON CONFLICT (name) DO UPDATE SET next_time = excluded.next_time, last_time = excluded.last_time
            WHERE schedules.next_time <= excluded.last_time
         RETURNING name, next_time",
    )
    .bind::<Double, _>(to_interval_seconds(interval_seconds))
    .bind::<Array<Text>, _>(names)
    .load(tx.connection()?)
    .await
}

/// Makes a tick due immediately, because more work is pending. Does nothing if it has been claimed again in
/// the meantime.
pub async fn make_due(tx: &mut SystemTx, tick: &ClaimedTick) -> Result<(), DbError> {
    statement(
        "make tick due",
        "UPDATE schedules SET next_time = app.now() WHERE name = $1 AND next_time = $2",
    )
    .bind::<Text, _>(tick.name.clone())
    .bind::<Timestamptz, _>(tick.next_time)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}
