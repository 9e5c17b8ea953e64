//! Work that no request waits for. Two kinds: *jobs*, which a change asks for in its transaction (`runner.rs` claims, keeps
//! and ends them, `dispatch.rs` says who does what), and *ticks*, which the clock asks for (`schedule.rs`): giving up uploads
//! that nobody finished, emptying the trash, deleting bytes that nothing refers to or that were moved, erasing deleted tenants,
//! keeping what is kept by time in bounds, sweeping the stores. Beside them, webhooks are sent.
//!
//! Any number of processes may work. Each job is with one of them, each tick is done by one of them, and whatever one leaves
//! behind, however it ends, another one takes up.

mod attempt;
mod deliveries;
mod dispatch;
mod runner;
pub mod schedule;

pub mod counts;

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use self::schedule::Tick;
use crate::app::App;

/// How long a look at the schedule may be away: a tick is late by this at most.
const LOOK_AT_SCHEDULE: Duration = Duration::from_secs(5);

/// Works until it is told to stop, then drains: jobs that run have so long to end, and are given back when they do not.
pub async fn run(app: Arc<App>, drain: Duration, shutdown: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    let stopped = async {
        shutdown.await;
        stop.cancel();
    };
    // Sweeps by themselves, because a walk through a large store must not keep the rest waiting.
    tokio::join!(
        runner::run(&app, drain, &stop),
        ticks(&app, Tick::SHORT, &stop),
        ticks(&app, Tick::LONG, &stop),
        deliveries::run(&app, drain, &stop),
        stopped,
    );
}

/// Does what is due by the clock. What a tick was doing when it is told to stop is done by the next one.
async fn ticks(app: &App, ticks: &[Tick], stop: &CancellationToken) {
    let rest = app.limits().worker.tick().min(LOOK_AT_SCHEDULE);
    let rounds = async {
        loop {
            if schedule::run_due(app, ticks).await == 0 {
                tokio::time::sleep(rest).await;
            }
        }
    };
    tokio::select! {
        () = rounds => {}
        () = stop.cancelled() => {}
    }
}

/// One round of everything, now: all ticks but the sweep, whether or not they are due, then the jobs that are. Answers how much
/// was done. For tests, and for whoever wants it done at once.
pub async fn round(app: &App) -> usize {
    let mut done = 0;
    for tick in Tick::SHORT {
        done += schedule::run_now(app, *tick).await;
    }
    done + due_jobs(app).await
}

/// Does the jobs that are due now, one after the other, until none is; answers how many were done.
pub async fn due_jobs(app: &App) -> usize {
    runner::run_due(app).await
}

/// Turns a panic into an error, so that what one piece of work does wrong does not end the others.
async fn shielded<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let caught = std::panic::AssertUnwindSafe(work).catch_unwind().await;
    caught.map_err(|panic| {
        let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("it panicked: {}", said.as_deref().unwrap_or("without a word"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error_that_says_what_it_said() {
        let number = 3;
        assert_eq!(shielded(async { number }).await, Ok(3));
        let said = shielded(async { assert!(number > 4, "number {number} is too small") }).await;
        assert_eq!(said, Err("it panicked: number 3 is too small".to_owned()));
    }
}
