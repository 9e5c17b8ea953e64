//! Retries operations that failed with a `Transient` error, and resumes interrupted downloads at the byte
//! they reached.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};

use super::{
    ByteStream, Capabilities, InitOptions, InitReport, ListPage, MultipartId, MultipartInfo, MultipartPage,
    ObjectInfo, ObjectStorage, PIECE_SIZE_BYTES_MAX, PartReceipt, Payload, PresignRequest, PresignedUrl,
    PutOptions, Space, StorageError, StorageErrorKind, StorageOptions, backoff::Backoff,
};
use crate::domain::{clock::IdSource, object_key::ObjectKey};

#[derive(Debug)]
pub(super) struct Retrying {
    provider: String,
    inner: Arc<dyn ObjectStorage>,
    backoff: Arc<Backoff>,
}

impl Retrying {
    pub(super) fn wrap(
        inner: Arc<dyn ObjectStorage>,
        options: &StorageOptions,
        ids: Arc<dyn IdSource>,
    ) -> Arc<dyn ObjectStorage> {
        let backoff = Arc::new(Backoff::new(options, ids));
        Arc::new(Self { provider: options.provider.clone(), inner, backoff })
    }

    async fn retry<'a, T>(
        &self,
        call: impl Fn() -> BoxFuture<'a, Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        let mut attempt = 1;
        loop {
            match call().await {
                Ok(value) => {
                    self.backoff.record_success();
                    return Ok(value);
                }
                Err(error) => self.backoff.wait_before_retry(attempt, error).await?,
            }
            attempt += 1;
        }
    }

    /// Returns whether the stored object has exactly this content.
    async fn has_content(&self, key: &ObjectKey, body: &Payload) -> Result<bool, StorageError> {
        if self.head(key).await?.size_bytes != body.len_bytes() {
            return Ok(false);
        }
        let mut stored = self.get(key, 0..body.len_bytes()).await?;
        let mut position = 0;
        while let Some(piece) = stored.try_next().await? {
            let end = position + piece.len() as u64;
            if body.pieces(&(position..end)).concat() != piece {
                return Ok(false);
            }
            position = end;
        }
        Ok(true)
    }
}

impl Retrying {
    /// Returns whether two objects have the same content.
    async fn have_equal_content(&self, left: &ObjectKey, right: &ObjectKey) -> Result<bool, StorageError> {
        let size_bytes = self.head(left).await?.size_bytes;
        if self.head(right).await?.size_bytes != size_bytes {
            return Ok(false);
        }
        // Read one after the other: two concurrent downloads could wait for each other at the concurrency
        // limit.
        for start in (0..size_bytes).step_by(PIECE_SIZE_BYTES_MAX) {
            let window = start..size_bytes.min(start + PIECE_SIZE_BYTES_MAX as u64);
            let left_bytes: Vec<Bytes> = self.get(left, window.clone()).await?.try_collect().await?;
            let right_bytes: Vec<Bytes> = self.get(right, window).await?.try_collect().await?;
            if left_bytes.concat() != right_bytes.concat() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[async_trait]
impl ObjectStorage for Retrying {
    fn provider(&self) -> &str {
        &self.provider
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
        let mut attempt = 1;
        loop {
            let error = match self.inner.put(key, body.clone(), options).await {
                Ok(info) => {
                    self.backoff.record_success();
                    return Ok(info);
                }
                Err(error) => error,
            };
            // An earlier attempt may have succeeded although its response was lost. In that case the object
            // is ours.
            if attempt > 1 && error.kind == StorageErrorKind::AlreadyExists {
                return if self.has_content(key, &body).await? { self.head(key).await } else { Err(error) };
            }
            self.backoff.wait_before_retry(attempt, error).await?;
            attempt += 1;
        }
    }

    /// If the response is lost, the upload id is unknown. `list_multiparts` finds such an upload, so that it
    /// can be aborted.
    async fn start_multipart(
        &self,
        key: &ObjectKey,
        part_size_bytes: u64,
        options: &PutOptions,
    ) -> Result<MultipartId, StorageError> {
        self.retry(|| self.inner.start_multipart(key, part_size_bytes, options)).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: Payload,
    ) -> Result<PartReceipt, StorageError> {
        self.retry(|| self.inner.put_part(key, id, number, body.clone())).await
    }

    async fn complete_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        parts: &[PartReceipt],
    ) -> Result<ObjectInfo, StorageError> {
        self.retry(|| self.inner.complete_multipart(key, id, parts)).await
    }

    async fn abort_multipart(&self, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError> {
        self.retry(|| self.inner.abort_multipart(key, id)).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StorageError> {
        self.retry(|| self.inner.head(key)).await
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        let stream = self.retry(|| self.inner.get(key, range.clone())).await?;
        let download = Download {
            inner: Arc::clone(&self.inner),
            backoff: Arc::clone(&self.backoff),
            key: key.clone(),
            rest: range,
            stream: Some(stream),
            attempt: 1,
        };
        Ok(stream::try_unfold(download, Download::next).boxed())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.retry(|| self.inner.delete(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<ListPage, StorageError> {
        self.retry(|| self.inner.list(prefix, after, limit)).await
    }

    async fn list_multiparts(
        &self,
        prefix: &str,
        after: Option<&MultipartInfo>,
        limit: usize,
    ) -> Result<MultipartPage, StorageError> {
        self.retry(|| self.inner.list_multiparts(prefix, after, limit)).await
    }

    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let mut attempt = 1;
        loop {
            let error = match self.inner.copy(from, to, options).await {
                Ok(info) => {
                    self.backoff.record_success();
                    return Ok(info);
                }
                Err(error) => error,
            };
            // As in `put`, the existing object may be the result of an earlier attempt.
            if attempt > 1 && error.kind == StorageErrorKind::AlreadyExists {
                return if self.have_equal_content(from, to).await? {
                    self.head(to).await
                } else {
                    Err(error)
                };
            }
            self.backoff.wait_before_retry(attempt, error).await?;
            attempt += 1;
        }
    }

    async fn list_parts(&self, key: &ObjectKey, id: &MultipartId) -> Result<Vec<PartReceipt>, StorageError> {
        self.retry(|| self.inner.list_parts(key, id)).await
    }

    async fn presign(&self, request: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError> {
        self.retry(|| self.inner.presign(request)).await
    }

    async fn initialize(&self, options: &InitOptions) -> Result<InitReport, StorageError> {
        self.inner.initialize(options).await
    }

    async fn space(&self) -> Result<Option<Space>, StorageError> {
        self.retry(|| self.inner.space()).await
    }

    async fn check(&self) -> Result<(), StorageError> {
        self.inner.check().await
    }
}

/// A download that continues with a new stream when its current stream fails.
struct Download {
    inner: Arc<dyn ObjectStorage>,
    backoff: Arc<Backoff>,
    key: ObjectKey,
    /// The range that has not been yielded yet.
    rest: Range<u64>,
    stream: Option<ByteStream>,
    /// The number of attempts since the last piece. A long download may be interrupted often, as long as it
    /// makes progress.
    attempt: u32,
}

impl Download {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StorageError> {
        loop {
            let error = match self.read_next().await {
                Ok(Some(piece)) => {
                    self.rest.start += piece.len() as u64;
                    self.attempt = 1;
                    return Ok(Some((piece, self)));
                }
                Ok(None) if self.rest.is_empty() => return Ok(None),
                Ok(None) => StorageError::new(StorageErrorKind::Transient, "get object")
                    .with_key(&self.key)
                    .with_source("the store ended the stream early"),
                Err(error) => error,
            };
            // Drop the stream before waiting: it may hold the permit that the next attempt needs.
            self.stream = None;
            self.backoff.wait_before_retry(self.attempt, error).await?;
            self.attempt += 1;
        }
    }

    async fn read_next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            missing => missing.insert(self.inner.get(&self.key, self.rest.clone()).await?),
        };
        stream.try_next().await
    }
}
