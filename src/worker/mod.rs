//! Background work. *Jobs* are enqueued in the transaction that causes them; `runner.rs` claims, runs and
//! finishes them, and `dispatch.rs` maps them to use cases. *Ticks* run on a schedule (`schedule.rs`):
//! abandoning expired uploads, purging the trash, deleting unreferenced and moved bytes, erasing deleted
//! tenants, settling first calls, enforcing retention, sweeping the stores, and verifying, copying and repairing
//! blobs. `webhooks.rs` delivers webhooks.
//!
//! Any number of processes may run this. One worker at a time holds each job and each tick. If a worker stops
//! or crashes, another one takes over its unfinished work.

mod attempt;
mod background_metrics;
mod dispatch;
mod runner;
pub mod schedule;
pub mod tick;
mod webhooks;

pub mod download_counts;
pub mod partitions;
pub mod refusals;

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use self::tick::Tick;
use crate::app::{App, RoundReport};

/// Runs background work until `stop` is cancelled, then drains: running jobs get the time `drain` to finish,
/// and are released if they do not. `stop` is a token and not a future, so that work that is running in another
/// task sees it at once.
pub async fn run_worker(app: Arc<App>, drain: Duration, stop: CancellationToken) {
    tokio::join!(
        runner::run_jobs_until_stopped(&app, drain, &stop),
        schedule::run_ticks_until_stopped(&app, &stop),
        webhooks::deliver_until_stopped(&app, drain, &stop),
    );
}

/// Runs one round now: all short ticks, whether due or not, then the due jobs. Returns the sum of
/// their reports. Used by tests, and by operators who do not want to wait.
pub async fn run_round(app: &App) -> RoundReport {
    let mut total = schedule::run_ticks_now(app, Tick::SHORT).await;
    total += run_due_jobs(app).await;
    total
}

/// Runs the due jobs one after another until none is left. Jobs that did not complete count as failed.
pub async fn run_due_jobs(app: &App) -> RoundReport {
    runner::run_due_jobs(app).await
}

/// Turns a panic into an error, so that one failing piece of work does not stop the others.
async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let caught = std::panic::AssertUnwindSafe(work).catch_unwind().await;
    caught.map_err(|panic| {
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
        format!("handler panicked: {}", message.as_deref().unwrap_or("no message"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_becomes_error_with_its_message() {
        let number = 3;
        assert_eq!(catch_panic(async { number }).await, Ok(3));
        let result = catch_panic(async { assert!(number > 4, "number {number} is too small") }).await;
        assert_eq!(result, Err("handler panicked: number 3 is too small".to_owned()));
    }
}
