//! The circuit breakers of the processes that run background work, as they reported them last.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _, upsert::excluded,
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    schema::storage_breakers,
    sql::{now, now_minus, query, seconds},
};
use crate::domain::breaker::BreakerState;

/// The age at which the report of a process is deleted, because the process has ended.
const REPORT_AGE_SECONDS_MAX: u32 = 3_600;

/// The breaker of one process for one provider.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = storage_breakers, check_for_backend(diesel::pg::Pg))]
pub struct ReportedBreaker {
    pub provider: String,
    pub state: BreakerState,
    /// The number of consecutive failures.
    pub failure_count: i32,
    /// The last of these failures, or empty.
    pub last_error: String,
}

/// Replaces the report of a process, and deletes those of processes that have ended.
pub async fn report(tx: &mut SystemTx, process: Uuid, breakers: &[ReportedBreaker]) -> Result<(), DbError> {
    for breaker in breakers {
        let upsert = diesel::insert_into(storage_breakers::table)
            .values((
                storage_breakers::process_id.eq(process),
                storage_breakers::provider.eq(&breaker.provider),
                storage_breakers::state.eq(breaker.state),
                storage_breakers::failure_count.eq(breaker.failure_count),
                storage_breakers::last_error.eq(&breaker.last_error),
                storage_breakers::report_time.eq(now()),
            ))
            .on_conflict((storage_breakers::process_id, storage_breakers::provider))
            .do_update()
            .set((
                storage_breakers::state.eq(excluded(storage_breakers::state)),
                storage_breakers::failure_count.eq(excluded(storage_breakers::failure_count)),
                storage_breakers::last_error.eq(excluded(storage_breakers::last_error)),
                storage_breakers::report_time.eq(excluded(storage_breakers::report_time)),
            ));
        query("report circuit breaker", upsert).execute(tx.connection()?).await?;
    }
    let ended = storage_breakers::table
        .filter(storage_breakers::report_time.lt(now_minus(seconds(REPORT_AGE_SECONDS_MAX))));
    query("delete old circuit breakers", diesel::delete(ended)).execute(tx.connection()?).await.map(|_| ())
}

/// Returns the breakers that were reported in the last `age_seconds_max` seconds, ordered by provider.
pub async fn list_recent(tx: &mut SystemTx, age_seconds_max: u32) -> Result<Vec<ReportedBreaker>, DbError> {
    let recent = storage_breakers::table
        .filter(storage_breakers::report_time.ge(now_minus(seconds(age_seconds_max))))
        .order((storage_breakers::provider, storage_breakers::process_id))
        .select(ReportedBreaker::as_select());
    query("list circuit breakers", recent).load(tx.connection()?).await
}
