//! Who sweeps a store, and when it was last swept.

use diesel::{
    QueryableByName,
    sql_types::{Bool, Double, Text},
};

use super::{DbError, SystemTx, statement::statement};

#[derive(QueryableByName)]
struct Locked {
    #[diesel(sql_type = Bool)]
    is_locked: bool,
}

/// Makes this transaction the only one that sweeps this store, until it ends; false when another one does. The lock goes
/// with the connection, so a sweeper that was killed stands in nobody's way.
pub async fn lock(tx: &mut SystemTx, provider: &str) -> Result<bool, DbError> {
    let row: Locked = statement(
        "lock sweep",
        "SELECT pg_try_advisory_xact_lock(hashtextextended('sweep ' || {}, 0)) AS is_locked",
    )
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await?;
    Ok(row.is_locked)
}

/// Whether it is time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Due {
    /// For any sweep.
    #[diesel(sql_type = Bool)]
    pub is_due: bool,
    /// For one that walks through everything.
    #[diesel(sql_type = Bool)]
    pub is_full_walk_due: bool,
}

/// Whether so many seconds have passed since the last sweep of this store, and since the last full walk.
pub async fn due(
    tx: &mut SystemTx,
    provider: &str,
    interval_seconds: u64,
    full_walk_interval_seconds: u64,
) -> Result<Due, DbError> {
    statement(
        "read last sweep",
        "SELECT coalesce(max(sweep_time) + make_interval(secs => {}) <= app.now(), true) AS is_due,
                coalesce(max(full_walk_time) + make_interval(secs => {}) <= app.now(), true) AS is_full_walk_due
         FROM sweeps WHERE provider = {}",
    )
    .bind::<Double, _>(seconds(interval_seconds))
    .bind::<Double, _>(seconds(full_walk_interval_seconds))
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await
}

/// Remembers a sweep that has ended.
pub async fn record(tx: &mut SystemTx, provider: &str, is_full_walk: bool) -> Result<(), DbError> {
    statement(
        "record sweep",
        "INSERT INTO sweeps (provider, sweep_time, full_walk_time)
         VALUES ({}, app.now(), CASE WHEN {} THEN app.now() END)
         ON CONFLICT (provider) DO UPDATE SET sweep_time = excluded.sweep_time,
            full_walk_time = coalesce(excluded.full_walk_time, sweeps.full_walk_time)",
    )
    .bind::<Text, _>(provider.to_owned())
    .bind::<Bool, _>(is_full_walk)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Seconds as `make_interval` takes them.
pub(super) fn seconds(seconds: u64) -> f64 {
    u32::try_from(seconds).unwrap_or(u32::MAX).into()
}
