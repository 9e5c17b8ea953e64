//! The decorator for background work: a circuit breaker, and a time limit for each call, so that a store that
//! hangs costs background work a bounded time and then none.
//!
//! Requests of clients do not use it: they have deadlines of their own, and each may find the store working
//! again.

use std::{ops::Range, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::time::timeout;

use super::{
    Attempt, ByteStream, Decorator, DeletionResults, ObjectStorage, Operation, StorageError,
    StorageErrorKind,
    breaker::{AdmittedCall, Breaker, failure_of},
};
use crate::domain::object_key::ObjectKey;

#[derive(Debug)]
pub(super) struct Guarded {
    inner: Arc<dyn ObjectStorage>,
    breaker: Arc<Breaker>,
    call_timeout: Duration,
}

impl Guarded {
    pub(super) fn wrap(
        inner: Arc<dyn ObjectStorage>,
        breaker: Arc<Breaker>,
        call_timeout: Duration,
    ) -> Arc<dyn ObjectStorage> {
        Arc::new(Self { inner, breaker, call_timeout })
    }

    fn admit(&self, operation: Operation) -> Result<AdmittedCall<'_>, StorageError> {
        self.breaker.admit().map_err(|rejected| {
            StorageError::new(StorageErrorKind::Unavailable, operation.verb_phrase()).with_source(rejected)
        })
    }

    /// Waits for a call at most for the time limit. Dropping the call is safe, see "Unknown outcome" in the
    /// documentation of the port.
    async fn limit_time<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        match timeout(self.call_timeout, call).await {
            Ok(result) => result,
            Err(_elapsed) => Err(timeout_error(operation, self.call_timeout)),
        }
    }
}

fn timeout_error(operation: Operation, limit: Duration) -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, operation.verb_phrase())
        .with_source(format!("no response within {} s", limit.as_secs()))
}

/// Returns whether the duration of an operation depends on the size of an object. The adapters limit the time
/// of the requests of these operations.
fn moves_bytes(operation: Operation) -> bool {
    matches!(operation, Operation::Put | Operation::PutPart | Operation::CompleteMultipart | Operation::Copy)
}

impl Decorator for Guarded {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.inner
    }

    async fn decorate<'a, T: Send>(
        &'a self,
        operation: Operation,
        attempt: impl Fn() -> Attempt<'a, T> + Send,
    ) -> Result<T, StorageError> {
        // Checks by operators must reach the store, and a presigned URL needs no request.
        if matches!(operation, Operation::Check | Operation::Initialize | Operation::Presign) {
            return attempt().await;
        }
        let call = self.admit(operation)?;
        let result = match moves_bytes(operation) {
            true => attempt().await,
            false => self.limit_time(operation, attempt()).await,
        };
        call.record(&result);
        result
    }

    /// The time limit applies to the response and to each piece.
    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        let call = self.admit(Operation::Get)?;
        let opened = self.limit_time(Operation::Get, self.inner.get(key, range)).await;
        call.record(&opened);
        Ok(limit_pauses(opened?, Arc::clone(&self.breaker), self.call_timeout))
    }

    /// A batch counts as failed if all of its keys failed.
    async fn delete_batch(&self, keys: &[ObjectKey]) -> Result<DeletionResults, StorageError> {
        let call = self.admit(Operation::DeleteBatch)?;
        let results = self.limit_time(Operation::DeleteBatch, self.inner.delete_batch(keys)).await;
        let failure = match &results {
            Ok(results) if results.iter().all(|result| failure_of(result).is_some()) => {
                results.iter().find_map(failure_of)
            }
            Ok(_) => None,
            failed => failure_of(failed),
        };
        call.record_failure_or_success(failure);
        results
    }
}

/// Ends a stream with an error if no piece arrives within the time limit. It may be polled after its end, like the
/// streams of the adapters.
fn limit_pauses(stream: ByteStream, breaker: Arc<Breaker>, limit: Duration) -> ByteStream {
    let next = move |stream: Option<ByteStream>| {
        let breaker = Arc::clone(&breaker);
        async move {
            let mut stream = stream?;
            let piece = match timeout(limit, stream.next()).await {
                Ok(piece) => piece?,
                Err(_elapsed) => Err(timeout_error(Operation::Get, limit)),
            };
            breaker.record(&piece);
            let rest = piece.is_ok().then_some(stream);
            Some((piece, rest))
        }
    };
    // Readers may poll a stream again after its end.
    stream::unfold(Some(stream), next).fuse().boxed()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::TryStreamExt;

    use super::*;
    use crate::{
        domain::breaker::BreakerState,
        storage::{
            ObjectStorageExt, PutOptions,
            breaker::BreakerOptions,
            flaky::{Fault, Flaky, Plan},
            tests::{key, memory},
        },
    };

    const LIMIT: Duration = Duration::from_secs(60);
    const OPTIONS: BreakerOptions = BreakerOptions {
        failures_max: 2,
        backoff_base: Duration::from_secs(10),
        backoff_max: Duration::from_secs(10),
    };

    fn guarded(plan: Plan) -> (Arc<Flaky>, Arc<Breaker>, Arc<dyn ObjectStorage>) {
        let flaky = Flaky::new(memory(), plan);
        let breaker = Arc::new(Breaker::new(OPTIONS));
        let store = Guarded::wrap(Arc::clone(&flaky) as _, Arc::clone(&breaker), LIMIT);
        (flaky, breaker, store)
    }

    /// The clock is paused and advances to the next timer when all tasks wait, so no time passes.
    #[tokio::test(start_paused = true)]
    async fn hanging_store_is_left_alone_after_a_few_calls() {
        let (flaky, breaker, store) = guarded(Plan::new().with_fault_in_all(Operation::Delete, Fault::Hang));
        for _ in 0..OPTIONS.failures_max {
            let error = store.delete(&key()).await.unwrap_err();
            assert_eq!(error.kind, StorageErrorKind::Unavailable, "{error:?}");
        }
        assert_eq!(
            breaker.status().last_error,
            "delete object: store is unavailable: no response within 60 s"
        );
        assert_eq!(store.head(&key()).await.unwrap_err().kind, StorageErrorKind::Unavailable);
        assert_eq!(flaky.call_count(Operation::Head), 0, "an open breaker sends nothing");
        store.check().await.unwrap();

        flaky.set_plan(Plan::new());
        tokio::time::advance(OPTIONS.backoff_base).await;
        store.delete(&key()).await.unwrap();
        assert_eq!(breaker.status().state, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn batch_fails_if_all_of_its_keys_fail() {
        let down = Fault::Before(StorageErrorKind::Unavailable);
        let plan = Plan::new().with_fault(Operation::Delete, 1, down);
        let (flaky, breaker, store) = guarded(plan);
        store.delete_batch(&[key(), key()]).await.unwrap();
        assert_eq!(breaker.status().failures, 0, "a key was deleted");
        flaky.set_plan(Plan::new().with_fault_in_all(Operation::Delete, down));
        for _ in 0..OPTIONS.failures_max {
            store.delete_batch(&[key(), key()]).await.unwrap();
        }
        assert_eq!(breaker.status().state, BreakerState::Open);
    }

    /// A stream that yields one piece and then nothing.
    #[tokio::test(start_paused = true)]
    async fn download_that_stops_ends_with_an_error() {
        let breaker = Arc::new(Breaker::new(OPTIONS));
        let first = stream::iter([Ok(Bytes::from_static(b"x"))]);
        let stream = limit_pauses(first.chain(stream::pending()).boxed(), Arc::clone(&breaker), LIMIT);
        let error = stream.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Unavailable);
        assert_eq!(breaker.status().failures, 1);
    }

    #[tokio::test]
    async fn download_can_be_polled_after_its_end() {
        for pieces in
            [vec![], vec![Ok(Bytes::from_static(b"x"))], vec![Err(timeout_error(Operation::Get, LIMIT))]]
        {
            let (len, breaker) = (pieces.len(), Arc::new(Breaker::new(OPTIONS)));
            let mut stream = limit_pauses(stream::iter(pieces).boxed(), breaker, LIMIT);
            assert_eq!(stream.by_ref().count().await, len);
            assert!(stream.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn download_is_unchanged() {
        let (_, breaker, store) = guarded(Plan::new());
        let key = key();
        store.put(&key, Bytes::from_static(b"0123").into(), &PutOptions::default()).await.unwrap();
        assert_eq!(store.get_bytes(&key, 1..3).await.unwrap(), "12");
        assert_eq!(breaker.status().failures, 0);
    }
}
