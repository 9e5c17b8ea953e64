//! A server that can be killed: it has a runtime of its own, and everything that it does dies with that.

use std::time::Duration;

use tokio::runtime::Runtime;
use tracing::dispatcher;

use crate::harness::Service;

/// One more server over a service's database, stores and clock.
pub(super) struct Instance {
    pub(super) service: Service,
    runtime: Option<Runtime>,
}

impl Instance {
    pub(super) async fn start(s: &Service) -> Self {
        // What it logs is the test's log, in which no error may stand.
        let log = dispatcher::get_default(Clone::clone);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || std::mem::forget(dispatcher::set_default(&log)))
            .build()
            .unwrap();
        let s = s.clone();
        let service = runtime.spawn(async move { s.replica(|_| {}).await }).await.unwrap();
        // Callers do not die with the server; theirs is a connection that breaks.
        Self { service: service.connected_from_here().await, runtime: Some(runtime) }
    }

    /// Ends it as kill -9 does: nothing is drained, nothing is cleaned up. Returns when the database is done with what it
    /// was still told.
    pub(super) async fn crash(&mut self, s: &Service) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(20))).await.unwrap();
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND usename LIKE 'strongroom_test_%' AND state <> 'idle'";
        s.until("the database is done", || async { s.owner.number(busy).await == 0 }).await;
    }

    /// Ends it as SIGTERM does.
    pub(super) async fn stop(mut self) {
        self.service.stopped().await;
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(20))).await.unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // A failed assertion unwinds through here, where waiting is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
