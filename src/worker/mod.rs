//! Work that no request waits for: giving up uploads that nobody finished, emptying the trash, deleting bytes
//! that nothing refers to or that were moved, keeping what is kept by time in bounds.
//!
//! Every replica runs it; the work is idempotent, and rows that two replicas see at once are changed under a lock.

use std::{sync::Arc, time::Duration};

use crate::app::{
    App, Error,
    files::{empty_trash::empty_trash, reap::reap},
    retention::retain,
    storage::reap_strays::reap_strays,
    uploads::expire::expire,
};

/// How long to rest when there is nothing to do.
const REST: Duration = Duration::from_secs(60);

/// Works until it is told to stop.
pub async fn run(app: Arc<App>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    loop {
        let has_more = round(&app).await > 0;
        let rest = if has_more { Duration::ZERO } else { REST };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = &mut shutdown => return,
        }
    }
}

/// One round of everything; answers how much was done. What fails is logged and tried again in the next round, and does
/// not keep the rest from its turn.
pub async fn round(app: &App) -> usize {
    tolerate("keep by time", retain(app).await.map(|()| 0))
        + tolerate("expire uploads", expire(app).await)
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
