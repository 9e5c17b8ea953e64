//! Runs ticks on a schedule. Every process polls the schedule; the process that advances a tick's next time
//! runs it, so that one process runs each tick. A tick that was interrupted or has more work to do becomes
//! due again.
//!
//! Each tick, and each part of a tick that concerns one store, is a task of its own with a deadline; the work on blobs
//! has one that is postponed while it makes progress. A tick that hangs delays no other tick, and is cancelled at its
//! deadline. That loses nothing, see `app/rounds.rs`. While it runs, this process does not start it again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    task::{Id, JoinSet},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    background_metrics::record_background_metrics,
    catch_panic,
    tick::{RunLimit, Tick, TickPart},
};
use crate::{
    app::{App, Error, Progress, RoundReport},
    db::{
        DbError,
        schedules::{self, ClaimedTick},
    },
    telemetry::metrics::TickOutcome,
};

/// The maximum interval between two polls of the schedule. A tick is late by at most this time.
const SCHEDULE_POLL_MAX: Duration = Duration::from_secs(5);

/// The end of a run of a tick.
#[derive(Debug, Clone, Copy)]
struct TickEnd {
    report: RoundReport,
    outcome: TickOutcome,
}

/// A part that this process has claimed.
struct ClaimedPart {
    part: TickPart,
    claim: ClaimedTick,
}

/// Runs due ticks until `stop` is cancelled. An interrupted tick is repeated at its next time.
pub(super) async fn run_ticks_until_stopped(app: &Arc<App>, stop: &CancellationToken) {
    let all = [Tick::SHORT, Tick::LONG].concat();
    let mut running = RunningTicks { parts: TickPart::list(app, &all), ..RunningTicks::default() };
    tokio::select! {
        () = running.run(app) => {}
        () = stop.cancelled() => {}
    }
    running.tasks.shutdown().await;
}

/// The ticks that run in this process.
#[derive(Default)]
struct RunningTicks {
    parts: Vec<TickPart>,
    tasks: JoinSet<()>,
    by_task: HashMap<Id, TickPart>,
}

impl RunningTicks {
    /// Starts due ticks, without an end.
    async fn run(&mut self, app: &Arc<App>) {
        let interval = app.limits().worker.tick_interval().min(SCHEDULE_POLL_MAX);
        let mut next_measurement = Instant::now();
        loop {
            if next_measurement <= Instant::now() {
                record_background_metrics(app, &self.parts).await;
                next_measurement = Instant::now() + interval;
            }
            self.start_due(app).await;
            tokio::select! {
                // A tick that has more work is due again at once.
                Some(ended) = self.tasks.join_next_with_id() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    self.by_task.remove(&id);
                }
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// Starts the due ticks that do not run in this process.
    async fn start_due(&mut self, app: &Arc<App>) {
        let busy: HashSet<&TickPart> = self.by_task.values().collect();
        let idle: Vec<TickPart> = self.parts.iter().filter(|part| !busy.contains(part)).cloned().collect();
        for claimed in claim_due_parts(app, idle).await {
            let (app, part) = (Arc::clone(app), claimed.part.clone());
            let task = self.tasks.spawn(async move {
                run_claimed(&app, &claimed).await;
            });
            self.by_task.insert(task.id(), part);
        }
    }
}

/// Runs those of the given ticks that are due and that no other process has claimed, concurrently. Returns the
/// sum of their reports. A tick that fails runs again at its next time.
pub async fn run_due_ticks(app: &App, ticks: &[Tick]) -> RoundReport {
    let claimed = claim_due_parts(app, TickPart::list(app, ticks)).await;
    let reports = join_all(claimed.iter().map(|claimed| run_claimed(app, claimed))).await;
    sum(reports)
}

/// Runs ticks one after the other now, whether due or not. Returns the sum of their reports. A tick that fails as
/// a whole counts as one failed item.
pub async fn run_ticks_now(app: &App, ticks: &[Tick]) -> RoundReport {
    let mut reports = Vec::new();
    for part in TickPart::list(app, ticks) {
        reports.push(run_part(app, &part).await.report);
    }
    sum(reports)
}

fn sum(reports: Vec<RoundReport>) -> RoundReport {
    let mut total = RoundReport::default();
    for report in reports {
        total += report;
    }
    total
}

/// Runs a claimed part and records its end in the schedule.
async fn run_claimed(app: &App, claimed: &ClaimedPart) -> RoundReport {
    let end = run_part(app, &claimed.part).await;
    if let Err(error) = record_end(app, &claimed.claim, end).await {
        tracing::warn!(tick = claimed.claim.name, %error, "failed to record the end of a tick");
    }
    end.report
}

/// Runs a part until it ends or its limit cancels it, and logs the result.
async fn run_part(app: &App, part: &TickPart) -> TickEnd {
    let (name, limit) = (part.schedule_name(), part.limit(app));
    let (started, progress) = (Instant::now(), Progress::default());
    let ran = run_within(limit, &progress, part.run(app, &progress)).await;
    let end = log_end(&name, limit, ran);
    app.metrics().record_tick(&part.labels(), end.outcome, started.elapsed());
    end
}

/// The result of a run, or the text of its panic. `None` if the run was cancelled.
type RunResult = Option<Result<Result<RoundReport, Error>, String>>;

/// Runs a tick until it ends or its limit cancels it.
async fn run_within(
    limit: RunLimit,
    progress: &Progress,
    work: impl Future<Output = Result<RoundReport, Error>>,
) -> RunResult {
    let cancelled = async {
        match limit {
            RunLimit::Duration(deadline) => sleep(deadline).await,
            RunLimit::WithoutProgress(limit) => progress.stalled(limit).await,
        }
    };
    tokio::select! {
        biased;
        ran = catch_panic(work) => Some(ran),
        () = cancelled => None,
    }
}

fn log_end(name: &str, limit: RunLimit, ran: RunResult) -> TickEnd {
    let failed = |outcome| TickEnd { report: RoundReport { failed: 1, ..RoundReport::default() }, outcome };
    match ran {
        Some(Ok(Ok(report))) => {
            let RoundReport { done, failed, has_more } = report;
            if done > 0 || failed > 0 {
                tracing::info!(tick = name, done, failed, has_more, "ran tick");
            }
            TickEnd { report, outcome: TickOutcome::Done }
        }
        Some(Ok(Err(error))) => {
            let cause = std::error::Error::source(&error);
            tracing::warn!(tick = name, %error, ?cause, "failed to run tick");
            failed(TickOutcome::Failed)
        }
        Some(Err(panic)) => {
            tracing::error!(tick = name, panic, "tick panicked");
            failed(TickOutcome::Panicked)
        }
        None => {
            match limit {
                RunLimit::Duration(deadline) => {
                    let deadline_seconds = deadline.as_secs();
                    tracing::warn!(tick = name, deadline_seconds, "cancelled a tick at its deadline");
                }
                RunLimit::WithoutProgress(limit) => {
                    let stall_seconds = limit.as_secs();
                    tracing::warn!(tick = name, stall_seconds, "cancelled a tick that made no progress");
                }
            }
            failed(TickOutcome::TimedOut)
        }
    }
}

/// Claims the due ones of the given parts. An error is logged, and the parts stay due.
async fn claim_due_parts(app: &App, parts: Vec<TickPart>) -> Vec<ClaimedPart> {
    let names: Vec<String> = parts.iter().map(TickPart::schedule_name).collect();
    let claimed = async {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut tx = app.db().system_tx().await?;
        let claims = schedules::claim_due(&mut tx, &names, app.limits().worker.tick_seconds).await?;
        tx.commit().await?;
        Ok::<_, DbError>(claims)
    };
    let claims = match claimed.await {
        Ok(claims) => claims,
        Err(error) => {
            tracing::warn!(%error, "failed to poll the schedule");
            return Vec::new();
        }
    };
    let mut claims: HashMap<String, ClaimedTick> =
        claims.into_iter().map(|claim| (claim.name.clone(), claim)).collect();
    let claimed = parts.into_iter().zip(names);
    claimed.filter_map(|(part, name)| claims.remove(&name).map(|claim| ClaimedPart { part, claim })).collect()
}

/// Records that a tick ended, and makes it due if it has more work.
async fn record_end(app: &App, claim: &ClaimedTick, end: TickEnd) -> Result<(), DbError> {
    if end.outcome != TickOutcome::Done {
        return Ok(());
    }
    let mut tx = app.db().system_tx().await?;
    schedules::record_done(&mut tx, &claim.name).await?;
    if end.report.has_more {
        schedules::make_due(&mut tx, claim).await?;
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(300);

    /// The clock is paused and advances to the next timer when all tasks wait, so no time passes.
    async fn end_of(work: impl Future<Output = Result<RoundReport, Error>>) -> TickEnd {
        let limit = RunLimit::Duration(DEADLINE);
        log_end("retention", limit, run_within(limit, &Progress::default(), work).await)
    }

    #[tokio::test(start_paused = true)]
    async fn tick_ends_at_its_deadline_whatever_it_does() {
        let report = RoundReport { done: 2, failed: 0, has_more: true };
        let done = end_of(async { Ok(report) }).await;
        assert_eq!((done.outcome, done.report), (TickOutcome::Done, report));
        for (end, outcome) in [
            (end_of(std::future::pending()).await, TickOutcome::TimedOut),
            (end_of(async { Err(Error::PageTokenInvalid) }).await, TickOutcome::Failed),
            (end_of(async { panic!("a bug") }).await, TickOutcome::Panicked),
        ] {
            assert_eq!((end.outcome, end.report.failed, end.report.has_more), (outcome, 1, false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_on_blobs_goes_on_while_it_makes_progress() {
        let (limit, progress) = (RunLimit::WithoutProgress(DEADLINE), Progress::default());
        let copies_for_days = async {
            for _ in 0..1_000 {
                sleep(DEADLINE / 2).await;
                progress.note();
            }
            Ok(RoundReport::default())
        };
        let ran = run_within(limit, &progress, copies_for_days).await;
        assert_eq!(log_end("replicate_blobs", limit, ran).outcome, TickOutcome::Done);
        let ran = run_within(limit, &progress, std::future::pending()).await;
        assert_eq!(log_end("replicate_blobs", limit, ran).outcome, TickOutcome::TimedOut);
    }
}
