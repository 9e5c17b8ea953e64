//! Waits for states that a test then asserts. Their time limits only end a test that hangs.

use std::{future::Future, time::Duration};

use strongroom::db::{DbError, PoolStatus};

use super::Inner;

/// The time after which a test fails that waits. It is long because a watch delays an event until all earlier
/// transactions have ended, in all databases of a busy server.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(120);

impl Inner {
    /// Polls a condition until it is true. A query between two polls yields to other tasks.
    pub(crate) async fn wait_until<F, Fut>(&self, what: &str, is_true: F)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = bool>,
    {
        let polled = async {
            while !is_true().await {
                self.superuser.ping().await;
            }
        };
        tokio::time::timeout(WAIT_MAX, polled)
            .await
            .unwrap_or_else(|_| panic!("timed out after {WAIT_MAX:?}: {what}"));
    }

    /// Begins transactions until one must wait for a connection, which it then does not get. Returns the
    /// others. The time to connect does not matter: a transaction waits only if its share of the pool is used
    /// up.
    pub(crate) async fn hold_connections<T, F>(
        &self,
        pool: impl Fn() -> PoolStatus,
        mut begin: impl FnMut() -> F,
    ) -> Vec<T>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let mut held = Vec::new();
        loop {
            let is_waiting = || async { pool().shares.waiting > 0 };
            tokio::select! {
                biased;
                begun = begin() => held.push(begun.unwrap()),
                () = self.wait_until("a transaction waits", is_waiting) => return held,
            }
        }
    }
}
