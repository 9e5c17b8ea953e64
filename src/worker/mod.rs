//! Work that no request waits for: emptying the trash, deleting bytes that nothing refers to, keeping what is kept by time
//! in bounds.
//!
//! Every replica runs it; the work is idempotent, and rows that two replicas see at once are changed under a lock.

use std::{sync::Arc, time::Duration};

use crate::app::{
    App, Error,
    files::{empty_trash::empty_trash, reap::reap},
    retention::retain,
};

/// How long to rest when there is nothing to do.
const REST: Duration = Duration::from_secs(60);

/// Works until it is told to stop.
pub async fn run(app: Arc<App>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    loop {
        let has_more = match round(&app).await {
            Ok(done) => done > 0,
            Err(error) => {
                tracing::warn!(error = %error, cause = ?std::error::Error::source(&error), "background work");
                false
            }
        };
        let rest = if has_more { Duration::ZERO } else { REST };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = &mut shutdown => return,
        }
    }
}

/// One round of everything; answers how much was done.
///
/// # Errors
/// When the database or the store does not answer. The next round goes on where this one ended.
pub async fn round(app: &App) -> Result<usize, Error> {
    retain(app).await?;
    Ok(empty_trash(app).await? + reap(app).await?)
}
