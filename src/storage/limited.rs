//! Limits the number of concurrent operations on the wrapped store.
//!
//! A download counts until its stream is dropped, because the stream holds memory and a connection. Downloads
//! have a separate limit of the same size, so that slow readers cannot block other operations.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    ByteStream, Capabilities, InitOptions, InitReport, ListPage, MultipartId, MultipartInfo, MultipartPage,
    ObjectInfo, ObjectStorage, PartReceipt, Payload, PresignRequest, PresignedUrl, PutOptions, Space,
    StorageError, StorageErrorKind,
};
use crate::domain::object_key::ObjectKey;

#[derive(Debug)]
pub(super) struct Limited {
    inner: Arc<dyn ObjectStorage>,
    permits: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
}

impl Limited {
    pub(super) fn wrap(inner: Arc<dyn ObjectStorage>, concurrency_max: usize) -> Arc<dyn ObjectStorage> {
        let permits = || Arc::new(Semaphore::new(concurrency_max.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { inner, permits: permits(), downloads: permits() })
    }

    async fn acquire_permit(&self) -> Result<OwnedSemaphorePermit, StorageError> {
        Self::acquire(&self.permits).await
    }

    async fn acquire(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StorageError> {
        let permit = Arc::clone(permits).acquire_owned().await;
        permit.map_err(|closed| {
            StorageError::new(StorageErrorKind::Other, "acquire storage permit").with_source(closed)
        })
    }
}

#[async_trait]
impl ObjectStorage for Limited {
    fn provider(&self) -> &str {
        self.inner.provider()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Payload,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.put(key, body, options).await
    }

    async fn start_multipart(
        &self,
        key: &ObjectKey,
        part_size_bytes: u64,
        options: &PutOptions,
    ) -> Result<MultipartId, StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.start_multipart(key, part_size_bytes, options).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: Payload,
    ) -> Result<PartReceipt, StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.put_part(key, id, number, body).await
    }

    async fn complete_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        parts: &[PartReceipt],
    ) -> Result<ObjectInfo, StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.complete_multipart(key, id, parts).await
    }

    async fn abort_multipart(&self, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.abort_multipart(key, id).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.head(key).await
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        let permit = Self::acquire(&self.downloads).await?;
        let stream = self.inner.get(key, range).await?;
        // The closure owns the permit, so the permit is released when the stream is dropped.
        let hold_permit = move |piece| {
            let _held = &permit;
            piece
        };
        Ok(stream.map(hold_permit).boxed())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.delete(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<ListPage, StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.list(prefix, after, limit).await
    }

    async fn list_multiparts(
        &self,
        prefix: &str,
        after: Option<&MultipartInfo>,
        limit: usize,
    ) -> Result<MultipartPage, StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.list_multiparts(prefix, after, limit).await
    }

    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.copy(from, to, options).await
    }

    async fn list_parts(&self, key: &ObjectKey, id: &MultipartId) -> Result<Vec<PartReceipt>, StorageError> {
        let _permit = self.acquire_permit().await?;
        self.inner.list_parts(key, id).await
    }

    async fn presign(&self, request: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError> {
        self.inner.presign(request).await
    }

    async fn initialize(&self, options: &InitOptions) -> Result<InitReport, StorageError> {
        self.inner.initialize(options).await
    }

    async fn space(&self) -> Result<Option<Space>, StorageError> {
        self.inner.space().await
    }

    async fn check(&self) -> Result<(), StorageError> {
        // Not limited: readiness depends on the store, not on how many downloads are open.
        self.inner.check().await
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::storage::tests::{key, memory};

    #[tokio::test]
    async fn download_holds_its_permit_until_the_stream_is_dropped() {
        let key = key();
        let limited = Limited::wrap(memory(), 1);
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
