//! The circuit breakers of the stores: their levels in metrics, and their reports for `storage status`.

use std::collections::BTreeMap;

use crate::{
    app::{App, Error},
    db::{
        SystemTx,
        storage_breakers::{self, ReportedBreaker},
    },
    domain::breaker::BreakerState,
    storage::Breakers,
    telemetry::metrics::BreakerLevel,
};

/// The age at which a report does not count any more. A process that runs background work reports every few
/// seconds.
const REPORT_AGE_SECONDS_MAX: u32 = 60;
/// The maximum length of a reported error, in characters.
const ERROR_CHARACTERS_MAX: usize = 500;

/// The breakers of one provider, over all processes that run background work.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BreakerSummary {
    /// The state of the breaker that is furthest from closed.
    pub state: BreakerState,
    /// The number of processes that reported a breaker in the last minute.
    pub process_count: usize,
    /// The number of those whose breaker is not closed.
    pub open_process_count: usize,
    /// The last failure of a store whose breaker is not closed, or empty.
    pub last_error: String,
}

/// Returns the level of each breaker of this process: 0 for closed, 1 for half open, 2 for open.
pub(in crate::app) fn read_levels(breakers: &Breakers) -> Vec<BreakerLevel> {
    let level = |state: BreakerState| match state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    };
    let statuses = breakers.statuses().into_iter();
    statuses.map(|(provider, status)| BreakerLevel { provider, level: level(status.state) }).collect()
}

/// Reports the breakers of this process.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn report_breakers(app: &App) -> Result<(), Error> {
    let statuses = app.background_stores.breakers().statuses().into_iter();
    let reports: Vec<ReportedBreaker> = statuses
        .map(|(provider, status)| ReportedBreaker {
            provider,
            state: status.state,
            failure_count: i32::try_from(status.failures).unwrap_or(i32::MAX),
            last_error: status.last_error.chars().take(ERROR_CHARACTERS_MAX).collect(),
        })
        .collect();
    let mut tx = app.db.system_tx().await?;
    storage_breakers::report(&mut tx, app.process_id, &reports).await?;
    Ok(tx.commit().await?)
}

/// Summarizes the recent reports by provider.
pub(super) async fn summarize_breakers(tx: &mut SystemTx) -> Result<BTreeMap<String, BreakerSummary>, Error> {
    let reports = storage_breakers::list_recent(tx, REPORT_AGE_SECONDS_MAX).await?;
    Ok(summarize(reports))
}

fn summarize(reports: Vec<ReportedBreaker>) -> BTreeMap<String, BreakerSummary> {
    let mut summaries: BTreeMap<String, BreakerSummary> = BTreeMap::new();
    for report in reports {
        let summary = summaries.entry(report.provider).or_insert_with(|| BreakerSummary {
            state: BreakerState::Closed,
            process_count: 0,
            open_process_count: 0,
            last_error: String::new(),
        });
        summary.process_count += 1;
        // The numbers of the states ascend with the distance from closed.
        summary.state = summary.state.max(report.state);
        if report.state != BreakerState::Closed {
            summary.open_process_count += 1;
            summary.last_error = report.last_error;
        }
    }
    summaries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_shows_the_worst_state() {
        let report = |provider: &str, state, last_error: &str| ReportedBreaker {
            provider: provider.to_owned(),
            state,
            failure_count: 0,
            last_error: last_error.to_owned(),
        };
        let summaries = summarize(vec![
            report("a", BreakerState::Open, "down"),
            report("a", BreakerState::Closed, ""),
            report("a", BreakerState::HalfOpen, "slow"),
            report("b", BreakerState::Closed, ""),
        ]);
        let (a, b) = (&summaries["a"], &summaries["b"]);
        assert_eq!((a.state, a.process_count, a.open_process_count), (BreakerState::Open, 3, 2));
        assert_eq!(a.last_error, "slow");
        assert_eq!((b.state, b.process_count, b.open_process_count), (BreakerState::Closed, 1, 0));
    }
}
