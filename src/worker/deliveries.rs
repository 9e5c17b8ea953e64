//! Sends webhooks: to so many endpoints at once, and to the next one whenever a place is free, so that an endpoint that is slow
//! to answer keeps nobody waiting. Told to stop, it takes no more endpoints, sends nothing new, and cuts after the drain what has
//! not ended: a lease runs out by itself, and the message is sent again under the same id.

use std::{sync::Arc, time::Duration};

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::app::{
    App, Error,
    webhooks::deliver::{claim, serve},
};

/// How many endpoints a process sends to at the same time.
const PLACES: usize = 16;

/// Events are to leave soon after they happened.
const REST: Duration = Duration::from_secs(1);

/// Sends until it is told to stop, and drains.
pub(super) async fn run(app: &Arc<App>, drain: Duration, stop: &CancellationToken) {
    let mut under_way = JoinSet::new();
    while !stop.is_cancelled() {
        let leases = claim(app, PLACES.saturating_sub(under_way.len())).await.unwrap_or_else(|error| {
            warn(&error);
            Vec::new()
        });
        let is_idle = leases.is_empty();
        for lease in leases {
            let (app, stop) = (Arc::clone(app), stop.clone());
            under_way.spawn(async move { serve(&app, &lease, &stop).await });
        }
        if !is_idle && under_way.len() < PLACES {
            continue;
        }
        tokio::select! {
            Some(ended) = under_way.join_next() => note(ended),
            () = tokio::time::sleep(REST) => {}
            () = stop.cancelled() => {}
        }
    }
    let ended = async {
        while let Some(ended) = under_way.join_next().await {
            note(ended);
        }
    };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::info!(webhooks = under_way.len(), "cutting deliveries that did not end in time");
        under_way.shutdown().await;
    }
}

fn note(ended: Result<Result<usize, Error>, JoinError>) {
    match ended {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn(&error),
        Err(panic) => tracing::error!(work = "deliver webhooks", %panic, "background work"),
    }
}

fn warn(error: &Error) {
    let cause = std::error::Error::source(error);
    tracing::warn!(work = "deliver webhooks", %error, ?cause, "background work");
}
