//! Delivers events to a limited number of webhooks concurrently, and starts the next endpoint as soon as
//! one finishes, so that a slow endpoint delays no other. When stopped, it claims no more endpoints and sends
//! nothing new. Deliveries that do not finish within the drain time are cancelled: their leases expire, and
//! the messages are sent again with the same id.

use std::{sync::Arc, time::Duration};

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::app::{
    App, Error, RoundReport,
    webhooks::deliver::{claim_webhooks, deliver_due_events},
};

/// The number of endpoints that a process delivers to concurrently.
const WEBHOOKS_MAX: usize = 16;

/// The poll interval when idle. It bounds the delay of a delivery.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Delivers webhooks until `stop` is cancelled, then drains.
pub(super) async fn deliver_until_stopped(app: &Arc<App>, drain: Duration, stop: &CancellationToken) {
    let mut running = JoinSet::new();
    while !stop.is_cancelled() {
        let leases =
            claim_webhooks(app, WEBHOOKS_MAX.saturating_sub(running.len())).await.unwrap_or_else(|error| {
                log_error(&error);
                Vec::new()
            });
        let is_idle = leases.is_empty();
        for lease in leases {
            let (app, stop) = (Arc::clone(app), stop.clone());
            running.spawn(async move { deliver_due_events(&app, &lease, &stop).await });
        }
        if !is_idle && running.len() < WEBHOOKS_MAX {
            continue;
        }
        tokio::select! {
            Some(ended) = running.join_next() => log_outcome(ended),
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
    let ended = async {
        while let Some(ended) = running.join_next().await {
            log_outcome(ended);
        }
    };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::info!(webhooks = running.len(), "cancelled deliveries that did not finish in time");
        running.shutdown().await;
    }
}

fn log_outcome(ended: Result<Result<RoundReport, Error>, JoinError>) {
    match ended {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => log_error(&error),
        Err(panic) => tracing::error!(%panic, "webhook delivery panicked"),
    }
}

fn log_error(error: &Error) {
    let cause = std::error::Error::source(error);
    tracing::warn!(%error, ?cause, "failed to deliver events");
}
