//! A server that tests can kill. It has its own runtime, and all of its tasks end with the runtime.

use std::time::Duration;

use tokio::runtime::Runtime;
use tracing::dispatcher;

use crate::harness::Service;

/// An additional server with the database, stores and clock of a service.
pub(super) struct Instance {
    pub(super) service: Service,
    runtime: Option<Runtime>,
}

impl Instance {
    pub(super) async fn start(s: &Service) -> Self {
        // Its logs go to the log of the test, which fails on errors.
        let log = dispatcher::get_default(Clone::clone);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || std::mem::forget(dispatcher::set_default(&log)))
            .build()
            .unwrap();
        let s = s.clone();
        let service = runtime.spawn(async move { s.start_replica(|_| {}).await }).await.unwrap();
        // The client connection must survive the runtime of the server, so that callers see it break.
        Self { service: service.reconnect_on_this_runtime().await, runtime: Some(runtime) }
    }

    /// Ends the server as `kill -9` does, without draining or clean-up. Returns when the database has
    /// finished the statements that it had received.
    pub(super) async fn crash(&mut self, s: &Service) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(20))).await.unwrap();
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND usename LIKE 'strongroom_test_%' AND state <> 'idle'";
        s.wait_until("the database is idle", || async { s.superuser.query_number(busy).await == 0 }).await;
    }

    /// Ends the server as SIGTERM does.
    pub(super) async fn stop(mut self) {
        self.service.stop().await;
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(20))).await.unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // A failed assertion unwinds through here, in async code that must not block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
