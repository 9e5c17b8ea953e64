//! The hours that restores lost. See [`crate::domain::restore_window`].

use diesel::{
    ExpressionMethods as _, Insertable, NullableExpressionMethods as _, QueryDsl as _, Queryable, Selectable,
    SelectableHelper as _, dsl::exists,
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    schema::restore_windows,
    sql::{now, query},
};
use crate::domain::{clock::Timestamp, restore_window::RestoreWindow};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = restore_windows, check_for_backend(diesel::pg::Pg))]
struct WindowRow {
    id: Uuid,
    provider: String,
    start_time: Timestamp,
    end_time: Timestamp,
    decide_time: Option<Timestamp>,
}

impl From<WindowRow> for RestoreWindow {
    fn from(row: WindowRow) -> Self {
        let WindowRow { id, provider, start_time, end_time, decide_time } = row;
        Self { id, provider, start_time, end_time, decide_time }
    }
}

/// Inserts a window.
pub async fn insert(tx: &mut SystemTx, window: &RestoreWindow) -> Result<(), DbError> {
    let RestoreWindow { id, provider, start_time, end_time, decide_time } = window.clone();
    let row = WindowRow { id, provider, start_time, end_time, decide_time };
    let insert = diesel::insert_into(restore_windows::table).values(row);
    query("insert restore window", insert).execute(tx.connection()?).await.map(|_| ())
}

/// Returns the windows of a store, the earliest first.
pub async fn list(tx: &mut SystemTx, provider: &str) -> Result<Vec<RestoreWindow>, DbError> {
    let windows = restore_windows::table
        .filter(restore_windows::provider.eq(provider))
        .order((restore_windows::end_time, restore_windows::id))
        .select(WindowRow::as_select());
    let rows: Vec<WindowRow> = query("list restore windows", windows).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(RestoreWindow::from).collect())
}

/// Returns whether a window of a store is undecided.
pub async fn has_undecided(tx: &mut SystemTx, provider: &str) -> Result<bool, DbError> {
    let undecided = restore_windows::table
        .filter(restore_windows::provider.eq(provider))
        .filter(restore_windows::decide_time.is_null());
    query("find undecided restore window", diesel::select(exists(undecided))).one(tx.connection()?).await
}

/// Marks a window as decided.
pub async fn decide(tx: &mut SystemTx, window: Uuid) -> Result<(), DbError> {
    let undecided = restore_windows::table.find(window).filter(restore_windows::decide_time.is_null());
    let update = diesel::update(undecided).set(restore_windows::decide_time.eq(now().nullable()));
    query("decide restore window", update).execute(tx.connection()?).await.map(|_| ())
}
