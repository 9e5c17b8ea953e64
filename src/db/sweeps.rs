//! The lock on the sweep of a store, and the times of past sweeps.

use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryableByName,
    dsl::case_when,
    sql_types::{Bool, Interval, Text},
    upsert::excluded,
};

use super::{
    DbError, SystemTx,
    schema::sweeps,
    sql::{coalesce_nullable, now, query, seconds_u64, statement},
};

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
    // A function of the server.
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
    // Aggregates that must return a row even if there is none.
    statement(
        "read last sweep",
        "SELECT coalesce(max(sweep_time) + $1 <= app.now(), true) AS is_due,
                coalesce(max(full_walk_time) + $2 <= app.now(), true) AS is_full_walk_due
         FROM sweeps WHERE provider = $3",
    )
    .bind::<Interval, _>(seconds_u64(interval_seconds))
    .bind::<Interval, _>(seconds_u64(full_walk_interval_seconds))
    .bind::<Text, _>(provider.to_owned())
    .one(tx.connection()?)
    .await
}

/// Records the time of a completed sweep.
pub async fn record_sweep(tx: &mut SystemTx, provider: &str, is_full_walk: bool) -> Result<(), DbError> {
    let full_walk_time = case_when(is_full_walk.into_sql::<Bool>(), now());
    let insert = diesel::insert_into(sweeps::table)
        .values((
            sweeps::provider.eq(provider),
            sweeps::sweep_time.eq(now()),
            sweeps::full_walk_time.eq(full_walk_time),
        ))
        .on_conflict(sweeps::provider)
        .do_update()
        .set((
            sweeps::sweep_time.eq(excluded(sweeps::sweep_time)),
            sweeps::full_walk_time
                .eq(coalesce_nullable(excluded(sweeps::full_walk_time), sweeps::full_walk_time)),
        ));
    query("record sweep", insert).execute(tx.connection()?).await.map(|_| ())
}
