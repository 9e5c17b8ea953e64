//! Writes the download counts that this process has in its memory. Every process that serves runs this.

use std::{sync::Arc, time::Duration};

use crate::app::{
    App,
    files::count_downloads::{flush, many_are_waiting},
};

/// How often. A crash loses the counts of so long at most.
const EVERY: Duration = Duration::from_secs(5);

/// Writes until it is told to stop. The rest is written by the drain.
pub async fn keep(app: Arc<App>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = many_are_waiting(&app) => {}
            () = &mut shutdown => return,
        }
        if let Err(error) = flush(&app).await {
            tracing::warn!(%error, "write download counts");
        }
    }
}
