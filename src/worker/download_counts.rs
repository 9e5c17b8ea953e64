//! Periodically writes the download counts that this process holds in memory. Every process that serves
//! requests runs this.

use std::{sync::Arc, time::Duration};

use crate::app::{
    App,
    files::count_downloads::{flush_download_counts, wait_for_many_counts},
};

/// The interval between writes. A crash loses at most the counts of one interval.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// Writes download counts until `shutdown` completes. The drain writes the remaining counts.
pub async fn write_download_counts(app: Arc<App>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = tokio::time::sleep(FLUSH_INTERVAL) => {}
            () = wait_for_many_counts(&app) => {}
            () = &mut shutdown => return,
        }
        if let Err(error) = flush_download_counts(&app).await {
            tracing::warn!(%error, "failed to write download counts");
        }
    }
}
