//! Periodically creates upcoming partitions. Every process that serves requests runs this, because it writes rows even
//! if no worker runs.

use std::{sync::Arc, time::Duration};

use crate::app::{App, retention::create_upcoming_partitions};

/// The interval between rounds. Partitions are created at least one period ahead, so several rounds may fail.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// The interval after a failed round, for example because a backup locks a table.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Creates upcoming partitions, at once and then every hour, until `shutdown` completes.
pub async fn create_partitions(app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let rounds = async {
        loop {
            let interval = match create_upcoming_partitions(&app).await {
                Ok(()) => INTERVAL,
                Err(error) => {
                    tracing::warn!(%error, "failed to create upcoming partitions");
                    RETRY_INTERVAL
                }
            };
            tokio::time::sleep(interval).await;
        }
    };
    tokio::select! {
        () = rounds => {}
        () = shutdown => {}
    }
}
