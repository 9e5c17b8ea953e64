//! When each tick of background work is due. Whoever moves a tick's next time on has its turn: a compare-and-set by the
//! database's clock, so that of any number of replicas one does it.

use diesel::{
    QueryableByName,
    sql_types::{Array, Double, Text, Timestamptz},
};

use super::{DbError, SystemTx, statement::statement, sweeps::seconds};
use crate::domain::clock::Timestamp;

/// A tick that is this replica's to do.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Turn {
    /// Which.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// When the next one is due.
    #[diesel(sql_type = Timestamptz)]
    pub next_time: Timestamp,
}

/// Takes those of these ticks that are due, and moves each on by so many seconds from now. A tick that was never taken is
/// due.
pub async fn take(tx: &mut SystemTx, names: &[&str], interval_seconds: u64) -> Result<Vec<Turn>, DbError> {
    // One order of locks for everybody.
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort_unstable();
    statement(
        "take due ticks",
        "INSERT INTO schedules (name, next_time, last_time)
         SELECT name, app.now() + make_interval(secs => {}), app.now() FROM unnest({}) AS n (name)
         ON CONFLICT (name) DO UPDATE SET next_time = excluded.next_time, last_time = excluded.last_time
            WHERE schedules.next_time <= excluded.last_time
         RETURNING name, next_time",
    )
    .bind::<Double, _>(seconds(interval_seconds))
    .bind::<Array<Text>, _>(names)
    .load(tx.connection()?)
    .await
}

/// There is more to do: makes a tick due at once, for whoever comes first, unless somebody has taken it since.
pub async fn go_on(tx: &mut SystemTx, turn: &Turn) -> Result<(), DbError> {
    statement(
        "make tick due",
        "UPDATE schedules SET next_time = app.now() WHERE name = {} AND next_time = {}",
    )
    .bind::<Text, _>(turn.name.clone())
    .bind::<Timestamptz, _>(turn.next_time)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}
