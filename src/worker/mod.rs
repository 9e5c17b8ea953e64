//! Work that no request waits for: giving up uploads that nobody finished, emptying the trash, deleting bytes
//! that nothing refers to or that were moved, keeping what is kept by time in bounds, sweeping the stores, sending webhooks.
//!
//! Every replica runs it; the work is idempotent, and rows that two replicas see at once are changed under a lock.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::app::{
    App, Error,
    files::{empty_trash::empty_trash, reap::reap},
    integrity::sweep::sweep_when_due,
    retention::retain,
    storage::reap_strays::reap_strays,
    uploads::expire::expire,
    webhooks::deliver::deliver,
};

/// How long to rest when there is nothing to do.
const REST: Duration = Duration::from_secs(60);

/// Events are to leave soon after they happened.
const DELIVERY_REST: Duration = Duration::from_secs(1);

/// Works until it is told to stop.
pub async fn run(app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    let rounds = async {
        while !stop.is_cancelled() {
            let rest = if round(&app).await > 0 { Duration::ZERO } else { REST };
            rest_for(rest, &stop).await;
        }
    };
    // By itself, because a walk through a large store must not keep the rest waiting.
    let sweeps = async {
        while !stop.is_cancelled() {
            tolerate("sweep", sweep_when_due(&app).await);
            rest_for(REST, &stop).await;
        }
    };
    // By itself too, because an endpoint that is slow to answer must not keep the rest waiting.
    let deliveries = async {
        while !stop.is_cancelled() {
            let delivered = tolerate("deliver webhooks", deliver(&app).await);
            rest_for(if delivered > 0 { Duration::ZERO } else { DELIVERY_REST }, &stop).await;
        }
    };
    let stopped = async {
        shutdown.await;
        stop.cancel();
    };
    tokio::join!(rounds, sweeps, deliveries, stopped);
}

async fn rest_for(rest: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(rest) => {}
        () = stop.cancelled() => {}
    }
}

/// One round of everything; answers how much was done. What fails is logged and tried again in the next round, and does
/// not keep the rest from its turn.
pub async fn round(app: &App) -> usize {
    tolerate("keep by time", retain(app).await.map(|()| 0))
        + tolerate("expire uploads", expire(app).await.map(|round| round.done))
        + tolerate("empty trash", empty_trash(app).await)
        + tolerate("delete blobs", reap(app).await)
        + tolerate("remove stray objects", reap_strays(app).await)
}

fn tolerate(work: &'static str, outcome: Result<usize, Error>) -> usize {
    outcome.unwrap_or_else(|error| {
        tracing::warn!(work, %error, cause = ?std::error::Error::source(&error), "background work");
        0
    })
}
