//! Limits the number of concurrent operations on the wrapped store.
//!
//! A download counts until its stream is dropped, because the stream holds memory and a connection. Downloads
//! have a separate limit, so that slow readers cannot block other operations. It is higher than the limit
//! of client downloads, which clients share fairly, so that slow clients cannot block other reads either.

use std::{ops::Range, sync::Arc};

use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Attempt, ByteStream, Decorator, ObjectStorage, Operation, StorageError, StorageErrorKind};
use crate::domain::object_key::ObjectKey;

#[derive(Debug)]
pub(super) struct Limited {
    inner: Arc<dyn ObjectStorage>,
    permits: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
}

impl Limited {
    pub(super) fn wrap(
        inner: Arc<dyn ObjectStorage>,
        concurrency_max: usize,
        downloads_max: usize,
    ) -> Arc<dyn ObjectStorage> {
        let permits = |max: usize| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { inner, permits: permits(concurrency_max), downloads: permits(downloads_max) })
    }
}

async fn acquire_permit(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StorageError> {
    let permit = Arc::clone(permits).acquire_owned().await;
    permit.map_err(|closed| {
        StorageError::new(StorageErrorKind::Other, "acquire storage permit").with_source(closed)
    })
}

impl Decorator for Limited {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.inner
    }

    async fn decorate<'a, T: Send>(
        &'a self,
        operation: Operation,
        attempt: impl Fn() -> Attempt<'a, T> + Send,
    ) -> Result<T, StorageError> {
        let _permit = match operation {
            // Readiness depends on the store, not on how many operations are active. The others are rare or
            // do not send the bytes of files.
            Operation::Check
            | Operation::Initialize
            | Operation::Space
            | Operation::Presign
            | Operation::ReadMarker
            | Operation::WriteMarker => None,
            _ => Some(acquire_permit(&self.permits).await?),
        };
        attempt().await
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        let permit = acquire_permit(&self.downloads).await?;
        let stream = self.inner.get(key, range).await?;
        // The closure owns the permit, so the permit is released when the stream is dropped.
        let hold_permit = move |piece| {
            let _held = &permit;
            piece
        };
        Ok(stream.map(hold_permit).boxed())
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::storage::{
        Payload, PutOptions,
        tests::{key, memory},
    };

    #[tokio::test]
    async fn download_holds_its_permit_until_the_stream_is_dropped() {
        let key = key();
        let limited = Limited::wrap(memory(), 1, 1);
        let body = Payload::from(bytes::Bytes::from_static(b"slow"));
        limited.put(&key, body, &PutOptions::default()).await.unwrap();
        let mut stream = limited.get(&key, 0..4).await.unwrap();
        assert!(limited.get(&key, 0..4).now_or_never().is_none(), "the only download permit is in use");
        assert!(limited.head(&key).now_or_never().is_some(), "other operations have their own permits");
        assert!(limited.check().now_or_never().is_some(), "readiness checks need no permit");
        assert_eq!(stream.next().await.unwrap().unwrap(), "slow");
        assert!(limited.get(&key, 0..4).now_or_never().is_none(), "the stream is still open");
        drop(stream);
        assert!(limited.get(&key, 0..4).now_or_never().is_some());
    }
}
