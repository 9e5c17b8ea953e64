//! Never more than so many operations under way at once. A download counts until its stream is dropped, since
//! it is the streams that hold memory and connections. Downloads are counted apart from everything else: readers that
//! are slow must not keep others from writing.

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
    pub(super) fn over(inner: Arc<dyn ObjectStorage>, concurrency_max: usize) -> Arc<dyn ObjectStorage> {
        let permits = || Arc::new(Semaphore::new(concurrency_max.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { inner, permits: permits(), downloads: permits() })
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, StorageError> {
        Self::one_of(&self.permits).await
    }

    async fn one_of(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StorageError> {
        let permit = Arc::clone(permits).acquire_owned().await;
        permit.map_err(|closed| {
            StorageError::new(StorageErrorKind::Other, "wait for the store").with_source(closed)
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
        let _permit = self.permit().await?;
        self.inner.put(key, body, options).await
    }

    async fn start_multipart(
        &self,
        key: &ObjectKey,
        part_size_bytes: u64,
        options: &PutOptions,
    ) -> Result<MultipartId, StorageError> {
        let _permit = self.permit().await?;
        self.inner.start_multipart(key, part_size_bytes, options).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: Payload,
    ) -> Result<PartReceipt, StorageError> {
        let _permit = self.permit().await?;
        self.inner.put_part(key, id, number, body).await
    }

    async fn complete_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        parts: &[PartReceipt],
    ) -> Result<ObjectInfo, StorageError> {
        let _permit = self.permit().await?;
        self.inner.complete_multipart(key, id, parts).await
    }

    async fn abort_multipart(&self, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError> {
        let _permit = self.permit().await?;
        self.inner.abort_multipart(key, id).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StorageError> {
        let _permit = self.permit().await?;
        self.inner.head(key).await
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        let permit = Self::one_of(&self.downloads).await?;
        let stream = self.inner.get(key, range).await?;
        // The closure owns the permit, so it goes when the stream goes.
        let holding = move |piece| {
            let _held = &permit;
            piece
        };
        Ok(stream.map(holding).boxed())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        let _permit = self.permit().await?;
        self.inner.delete(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<ListPage, StorageError> {
        let _permit = self.permit().await?;
        self.inner.list(prefix, after, limit).await
    }

    async fn list_multiparts(
        &self,
        prefix: &str,
        after: Option<&MultipartInfo>,
        limit: usize,
    ) -> Result<MultipartPage, StorageError> {
        let _permit = self.permit().await?;
        self.inner.list_multiparts(prefix, after, limit).await
    }

    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let _permit = self.permit().await?;
        self.inner.copy(from, to, options).await
    }

    async fn list_parts(&self, key: &ObjectKey, id: &MultipartId) -> Result<Vec<PartReceipt>, StorageError> {
        let _permit = self.permit().await?;
        self.inner.list_parts(key, id).await
    }

    async fn presign(&self, request: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError> {
        self.inner.presign(request).await
    }

    async fn initialise(&self, options: &InitOptions) -> Result<InitReport, StorageError> {
        self.inner.initialise(options).await
    }

    async fn space(&self) -> Result<Option<Space>, StorageError> {
        self.inner.space().await
    }

    async fn check(&self) -> Result<(), StorageError> {
        // Asks about the store, not about how busy we are: a replica full of slow downloads is still ready.
        self.inner.check().await
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::storage::tests::{key, memory};

    #[tokio::test]
    async fn a_download_holds_its_place_until_its_stream_is_dropped() {
        let key = key();
        let limited = Limited::over(memory(), 1);
        let body = Payload::from(bytes::Bytes::from_static(b"slow"));
        limited.put(&key, body, &PutOptions::default()).await.unwrap();
        let mut stream = limited.get(&key, 0..4).await.unwrap();
        assert!(limited.get(&key, 0..4).now_or_never().is_none(), "the one place of downloads is taken");
        assert!(limited.head(&key).now_or_never().is_some(), "and keeps nobody else waiting");
        assert!(limited.check().now_or_never().is_some(), "readiness does not queue");
        assert_eq!(stream.next().await.unwrap().unwrap(), "slow");
        assert!(limited.get(&key, 0..4).now_or_never().is_none(), "the stream still lives");
        drop(stream);
        assert!(limited.get(&key, 0..4).now_or_never().is_some());
    }
}
