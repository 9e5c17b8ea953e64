//! Group commit: items of one tenant that arrive while a transaction is running are committed together in the
//! next one.
//!
//! A submission starts at once if the tenant has a free connection; otherwise it waits until a batch of the
//! tenant finishes. The next batch takes the submissions of the tenant's callers in turn. There is no timer,
//! so an idle service adds no delay and a busy one forms batches on its own. With one hot quota row,
//! committing one by one reached 2,900 to 4,300 files/s; batches of 16 over four connections reached 24,300.
//!
//! Each batch runs in its own task, so a client that disconnects does not abort a commit in progress.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::tasks::Tasks;
use crate::{
    admission::{CallerKey, turns::TurnQueue},
    domain::ids::TenantId,
};

/// Processes batches of items of one tenant.
#[async_trait]
pub(super) trait BatchHandler: Send + Sync + 'static {
    type Item: Send + 'static;
    type Outcome: Send + 'static;

    /// Processes a batch and returns one outcome per item, in order. A failed item must not fail the others.
    async fn run_batch(&self, tenant: TenantId, items: Vec<Self::Item>) -> Vec<Self::Outcome>;
}

/// The task that ran the batch panicked.
#[derive(Debug, thiserror::Error)]
#[error("batch task panicked")]
pub(super) struct BatchAborted;

type Submission<B> = (<B as BatchHandler>::Item, oneshot::Sender<<B as BatchHandler>::Outcome>);

struct Queue<B: BatchHandler> {
    waiting: TurnQueue<CallerKey, Submission<B>>,
    running: usize,
}

struct Shared<B: BatchHandler> {
    handler: B,
    connections_max: usize,
    batch_max: usize,
    queues: Mutex<HashMap<TenantId, Queue<B>>>,
    tasks: Tasks,
}

/// Groups the submissions of each tenant into batches.
pub(super) struct Group<B: BatchHandler>(Arc<Shared<B>>);

impl<B: BatchHandler> Group<B> {
    /// Creates a group that runs at most `connections_max` batches of a tenant at a time, each with at most
    /// `batch_max` items.
    pub(super) fn new(handler: B, connections_max: usize, batch_max: usize, tasks: Tasks) -> Self {
        Self(Arc::new(Shared { handler, connections_max, batch_max, queues: Mutex::default(), tasks }))
    }

    /// Submits an item to the next batch of its tenant and waits for the outcome. Dropping the future does
    /// not withdraw the item.
    ///
    /// # Errors
    /// Returns `BatchAborted` if the batch panicked.
    pub(super) async fn submit(
        &self,
        tenant: TenantId,
        caller: CallerKey,
        item: B::Item,
    ) -> Result<B::Outcome, BatchAborted> {
        let (sender, outcome) = oneshot::channel();
        let is_worker_needed = {
            let mut queues = self.0.queues();
            let queue =
                queues.entry(tenant).or_insert_with(|| Queue { waiting: TurnQueue::default(), running: 0 });
            queue.waiting.push(caller, (item, sender));
            let is_worker_needed = queue.running < self.0.connections_max;
            queue.running += usize::from(is_worker_needed);
            is_worker_needed
        };
        if is_worker_needed {
            let shared = Arc::clone(&self.0);
            self.0.tasks.spawn(async move { shared.run_batches(tenant).await });
        }
        outcome.await.map_err(|_| BatchAborted)
    }
}

impl<B: BatchHandler> Shared<B> {
    fn queues(&self) -> MutexGuard<'_, HashMap<TenantId, Queue<B>>> {
        // The map is consistent after every statement, so a poisoned lock is safe to use.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs batches until the queue of the tenant is empty.
    async fn run_batches(&self, tenant: TenantId) {
        let mut worker = Worker { shared: self, tenant, has_ended: false };
        while let Some(batch) = worker.take_batch() {
            let (items, senders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let outcomes = self.handler.run_batch(tenant, items).await;
            debug_assert_eq!(outcomes.len(), senders.len());
            for (sender, outcome) in senders.into_iter().zip(outcomes) {
                // The receiver may have been dropped; the item was processed nevertheless.
                let _ = sender.send(outcome);
            }
        }
    }
}

/// A worker of one tenant. It decrements the count of workers under the same lock under which it finds the
/// queue empty, so that no submission can wait for a worker that is about to stop.
struct Worker<'a, B: BatchHandler> {
    shared: &'a Shared<B>,
    tenant: TenantId,
    has_ended: bool,
}

impl<B: BatchHandler> Worker<'_, B> {
    fn take_batch(&mut self) -> Option<Vec<Submission<B>>> {
        let mut queues = self.shared.queues();
        let queue = queues.get_mut(&self.tenant)?;
        if queue.waiting.is_empty() {
            self.has_ended = true;
            queue.running -= 1;
            if queue.running == 0 {
                queues.remove(&self.tenant);
            }
            return None;
        }
        Some(std::iter::from_fn(|| queue.waiting.pop()).take(self.shared.batch_max).collect())
    }
}

impl<B: BatchHandler> Drop for Worker<'_, B> {
    /// After a panic, removes the queue unless another worker serves it. Its submissions then fail with
    /// `BatchAborted` instead of waiting forever.
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut queues = self.shared.queues();
        if let Some(queue) = queues.get_mut(&self.tenant) {
            queue.running -= 1;
            if queue.running == 0 {
                queues.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Returns its items once the gate opens, and records the batches.
    struct Echo {
        gate: Arc<Semaphore>,
        batches: Arc<Mutex<Vec<Vec<usize>>>>,
        started: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl BatchHandler for Echo {
        type Item = usize;
        type Outcome = usize;

        async fn run_batch(&self, _: TenantId, items: Vec<usize>) -> Vec<usize> {
            self.started.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            self.batches.lock().unwrap().push(items.clone());
            items
        }
    }

    fn tenant() -> TenantId {
        TenantId::from_uuid(uuid::Uuid::nil())
    }

    fn alice() -> CallerKey {
        CallerKey::of_user("alice")
    }

    #[tokio::test]
    async fn groups_submissions_while_a_batch_runs() {
        let gate = Arc::new(Semaphore::new(0));
        let batches = Arc::new(Mutex::new(Vec::new()));
        let started = Arc::new(AtomicUsize::new(0));
        let echo = Echo { gate: gate.clone(), batches: batches.clone(), started: started.clone() };
        let group = Arc::new(Group::new(echo, 1, 16, Tasks::default()));

        let mut outcomes = Vec::new();
        for item in 0..10 {
            let group = group.clone();
            outcomes.push(tokio::spawn(async move { group.submit(tenant(), alice(), item).await.unwrap() }));
            while started.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        }
        while group.0.queues().get(&tenant()).map_or(0, |queue| queue.waiting.len()) < 9 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        for (item, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome.await.unwrap(), item);
        }
        let sizes: Vec<usize> = batches.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 9]);
    }

    #[tokio::test]
    async fn no_submission_waits_for_a_stopping_worker() {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let echo = Echo { gate, batches: Arc::default(), started: Arc::default() };
        let group = Arc::new(Group::new(echo, 1, 4, Tasks::default()));
        let rounds = (0..2000).map(|item| {
            let group = group.clone();
            async move { assert_eq!(group.submit(tenant(), alice(), item).await.unwrap(), item) }
        });
        futures::future::join_all(rounds).await;
        assert!(group.0.queues().is_empty());
    }

    #[tokio::test]
    async fn callers_of_a_tenant_take_turns() {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let echo = Echo { gate, batches: batches.clone(), started: Arc::default() };
        let group = Group::new(echo, 1, 2, Tasks::default());
        let submissions = [("flood", 1), ("flood", 2), ("flood", 3), ("alice", 10)];
        // All are in the queue before the worker runs.
        let outcomes = submissions.map(|(name, item)| group.submit(tenant(), CallerKey::of_user(name), item));
        futures::future::join_all(outcomes).await;
        assert_eq!(*batches.lock().unwrap(), [[1, 10], [2, 3]]);
    }
}
