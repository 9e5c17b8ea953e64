//! The progress of work on objects, so that work of any length can go on, and work that hangs is ended: each call that
//! succeeds, and each piece of a download, is progress.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use tokio::time::sleep;

use super::{Attempt, ByteStream, Decorator, ObjectStorage, Operation, StorageError};
use crate::domain::object_key::ObjectKey;

/// The progress of one work. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Notes that the work made a step.
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the work has made no step for at least `limit`, and less than twice as long.
    pub async fn stalled(&self, limit: Duration) {
        loop {
            let before = self.0.load(Ordering::Relaxed);
            sleep(limit).await;
            if self.0.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// Returns a store whose calls and downloads are steps of the work.
    pub fn watch(&self, store: &Arc<dyn ObjectStorage>) -> Arc<dyn ObjectStorage> {
        Arc::new(Watched { inner: Arc::clone(store), progress: self.clone() })
    }
}

#[derive(Debug)]
struct Watched {
    inner: Arc<dyn ObjectStorage>,
    progress: Progress,
}

impl Decorator for Watched {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.inner
    }

    async fn decorate<'a, T: Send>(
        &'a self,
        _operation: Operation,
        attempt: impl Fn() -> Attempt<'a, T> + Send,
    ) -> Result<T, StorageError> {
        let result = attempt().await;
        if result.is_ok() {
            self.progress.note();
        }
        result
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        let stream = self.inner.get(key, range).await?;
        let progress = self.progress.clone();
        let note = move |piece: &Result<_, StorageError>| {
            if piece.is_ok() {
                progress.note();
            }
        };
        Ok(stream.inspect(note).boxed())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;
    use tokio::time::{Instant, advance};

    use super::*;
    use crate::storage::{
        ObjectStorageExt as _, PutOptions, StorageErrorKind,
        flaky::{Fault, Flaky, Plan},
        tests::{key, memory},
    };

    const LIMIT: Duration = Duration::from_secs(60);

    /// The clock is paused and advances to the next timer when all tasks wait, so no time passes.
    #[tokio::test(start_paused = true)]
    async fn only_work_without_steps_stalls() {
        let progress = Progress::default();
        let steps = async {
            for _ in 0..100 {
                sleep(LIMIT / 2).await;
                progress.note();
            }
        };
        let started = Instant::now();
        tokio::select! {
            () = progress.stalled(LIMIT) => panic!("stalled after {:?}", started.elapsed()),
            () = steps => {}
        }
        assert_eq!(started.elapsed(), LIMIT * 50, "the work takes longer than the limit");
        progress.stalled(LIMIT).await;
        assert!(started.elapsed() <= LIMIT * 52);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_and_pieces_are_steps() {
        let (flaky, progress) = (Flaky::new(memory(), Plan::new()), Progress::default());
        let inner: Arc<dyn ObjectStorage> = Arc::clone(&flaky) as _;
        let (store, key) = (progress.watch(&inner), key());
        let down =
            Plan::new().with_fault_in_all(Operation::Head, Fault::Before(StorageErrorKind::Unavailable));
        flaky.set_plan(down);
        let mut stalled = std::pin::pin!(progress.stalled(LIMIT));
        assert!(stalled.as_mut().now_or_never().is_none());
        store.put(&key, Bytes::from_static(b"0123").into(), &PutOptions::default()).await.unwrap();
        advance(LIMIT).await;
        assert!(stalled.as_mut().now_or_never().is_none());
        assert_eq!(store.get_bytes(&key, 1..3).await.unwrap(), "12");
        advance(LIMIT).await;
        assert!(stalled.as_mut().now_or_never().is_none());
        store.head(&key).await.unwrap_err();
        advance(LIMIT).await;
        assert!(stalled.as_mut().now_or_never().is_some(), "a failed call is no step");
    }
}
