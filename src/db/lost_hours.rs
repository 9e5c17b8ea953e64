//! The lost hours of restores, in the table `restore_windows`. See [`crate::domain::lost_hours`].

use diesel::{
    ExpressionMethods as _, Insertable, NullableExpressionMethods as _, QueryDsl as _, Queryable, Selectable,
    SelectableHelper as _,
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    schema::restore_windows,
    sql::{now, query},
};
use crate::domain::{clock::Timestamp, lost_hours::LostHours};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = restore_windows, check_for_backend(diesel::pg::Pg))]
struct LostHoursRow {
    id: Uuid,
    provider: String,
    start_time: Timestamp,
    end_time: Timestamp,
    decide_time: Option<Timestamp>,
}

impl From<LostHoursRow> for LostHours {
    fn from(row: LostHoursRow) -> Self {
        let LostHoursRow { id, provider, start_time, end_time, decide_time } = row;
        Self { id, provider, start_time, end_time, decide_time }
    }
}

/// Inserts the lost hours of a store.
pub async fn insert(tx: &mut SystemTx, lost: &LostHours) -> Result<(), DbError> {
    let LostHours { id, provider, start_time, end_time, decide_time } = lost.clone();
    let row = LostHoursRow { id, provider, start_time, end_time, decide_time };
    let insert = diesel::insert_into(restore_windows::table).values(row);
    query("insert lost hours", insert).execute(tx.connection()?).await.map(|_| ())
}

/// Returns the lost hours of all restores of a store, the earliest first.
pub async fn list(tx: &mut SystemTx, provider: &str) -> Result<Vec<LostHours>, DbError> {
    let stored = restore_windows::table
        .filter(restore_windows::provider.eq(provider))
        .order((restore_windows::end_time, restore_windows::id))
        .select(LostHoursRow::as_select());
    let rows: Vec<LostHoursRow> = query("list lost hours", stored).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(LostHours::from).collect())
}

/// Returns the earliest undecided lost hours of a store.
pub async fn find_undecided(tx: &mut SystemTx, provider: &str) -> Result<Option<LostHours>, DbError> {
    let earliest = restore_windows::table
        .filter(restore_windows::provider.eq(provider))
        .filter(restore_windows::decide_time.is_null())
        .order((restore_windows::end_time, restore_windows::id))
        .limit(1)
        .select(LostHoursRow::as_select());
    let row: Option<LostHoursRow> =
        query("find earliest undecided lost hours", earliest).first(tx.connection()?).await?;
    Ok(row.map(LostHours::from))
}

/// Marks lost hours as decided.
pub async fn decide(tx: &mut SystemTx, id: Uuid) -> Result<(), DbError> {
    let undecided = restore_windows::table.find(id).filter(restore_windows::decide_time.is_null());
    let update = diesel::update(undecided).set(restore_windows::decide_time.eq(now().nullable()));
    query("decide lost hours", update).execute(tx.connection()?).await.map(|_| ())
}
