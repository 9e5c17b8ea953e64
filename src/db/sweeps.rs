//! The lock on the sweep of a store, and the times of past sweeps.

use diesel::{
    QueryableByName,
    sql_types::{Bool, Double, Text},
};

use super::{DbError, SystemTx, sql::statement};

#[derive(QueryableByName)]
struct LockedRow {
    #[diesel(sql_type = Bool)]
    is_locked: bool,
}

/// Tries to lock the sweep of a store until the transaction ends. Returns false if another transaction holds
/// the lock.
///
/// The lock is released with the connection, so a crashed sweeper does not block others.
pub async fn lock(tx: &mut SystemTx, provider: &str) -> Result<bool, DbError> {
    let row: LockedRow = statement(
        "lock sweep",
        "SELECT pg_try_advisory_xact_lock(hashtextextended('sweep ' || $1, 0)) AS is_locked",
    )
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await?;
    Ok(row.is_locked)
}

/// Which sweeps of a store are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct DueSweeps {
    /// Whether a sweep is due.
    #[diesel(sql_type = Bool)]
    pub is_due: bool,
    /// Whether a sweep of the whole store is due.
    #[diesel(sql_type = Bool)]
    pub is_full_walk_due: bool,
}

/// Returns whether the intervals since the last sweep of this store, and since its last full walk, have
/// passed.
pub async fn get_due(
    tx: &mut SystemTx,
    provider: &str,
    interval_seconds: u64,
    full_walk_interval_seconds: u64,
) -> Result<DueSweeps, DbError> {
    statement(
        "read last sweep",
        "SELECT coalesce(max(sweep_time) + make_interval(secs => $1) <= app.now(), true) AS is_due,
                coalesce(max(full_walk_time) + make_interval(secs => $2) <= app.now(), true) AS is_full_walk_due
         FROM sweeps WHERE provider = $3",
    )
    .bind::<Double, _>(to_interval_seconds(interval_seconds))
    .bind::<Double, _>(to_interval_seconds(full_walk_interval_seconds))
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await
}

/// Records the time of a completed sweep.
pub async fn record_sweep(tx: &mut SystemTx, provider: &str, is_full_walk: bool) -> Result<(), DbError> {
    statement(
        "record sweep",
        "INSERT INTO sweeps (provider, sweep_time, full_walk_time)
         VALUES ($1, app.now(), CASE WHEN $2 THEN app.now() END)
         ON CONFLICT (provider) DO UPDATE SET sweep_time = excluded.sweep_time,
            full_walk_time = coalesce(excluded.full_walk_time, sweeps.full_walk_time)",
    )
    .bind::<Text, _>(provider.to_owned())
    .bind::<Bool, _>(is_full_walk)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Converts seconds to the argument type of `make_interval`.
pub(super) fn to_interval_seconds(seconds: u64) -> f64 {
    u32::try_from(seconds).unwrap_or(u32::MAX).into()
}
