//! Retries operations that failed with a `Transient` error, and resumes interrupted downloads at the byte
//! they reached.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Attempt, ByteStream, Decorator, DeletionResults, ObjectInfo, ObjectStorage, ObjectStorageExt, Operation,
    PIECE_SIZE_BYTES_MAX, Payload, PutOptions, StorageError, StorageErrorKind, StorageOptions,
    backoff::{Backoff, FailedAttempts},
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
}

/// If the response of `start_multipart` is lost, the upload id is unknown. `list_multiparts` finds such an
/// upload, so that it can be aborted.
impl Decorator for Retrying {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.inner
    }

    async fn decorate<'a, T: Send>(
        &'a self,
        operation: Operation,
        attempt: impl Fn() -> Attempt<'a, T> + Send,
    ) -> Result<T, StorageError> {
        match operation {
            Operation::Check | Operation::Initialize => attempt().await,
            _ => self.backoff.retry(attempt).await,
        }
    }

    fn provider(&self) -> &str {
        &self.provider
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Payload,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let failed = match self.backoff.try_attempts(|| self.inner.put(key, body.clone(), options)).await {
            Err(failed) if may_have_succeeded(&failed) => failed,
            result => return Ok(result?),
        };
        match has_content(self, key, &body).await? {
            true => ObjectStorage::head(self, key).await,
            false => Err(failed.last_error),
        }
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        let stream = self.backoff.retry(|| self.inner.get(key, range.clone())).await?;
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

    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let failed = match self.backoff.try_attempts(|| self.inner.copy(from, to, options)).await {
            Err(failed) if may_have_succeeded(&failed) => failed,
            result => return Ok(result?),
        };
        match have_equal_content(self, from, to).await? {
            true => ObjectStorage::head(self, to).await,
            false => Err(failed.last_error),
        }
    }

    /// Retries only the keys that failed with a temporary error.
    async fn delete_batch(&self, keys: &[ObjectKey]) -> Result<DeletionResults, StorageError> {
        let mut results = self.backoff.retry(|| self.inner.delete_batch(keys)).await?;
        let mut attempt = 1;
        loop {
            let failed = list_retryable(&results);
            let Some(first) = failed.first() else { return Ok(results) };
            if let Err(error) = std::mem::replace(&mut results[*first], Ok(()))
                && let Err(error) = self.backoff.wait_before_retry(attempt, error).await
            {
                results[*first] = Err(error);
                return Ok(results);
            }
            let again: Vec<ObjectKey> = failed.iter().map(|index| keys[*index].clone()).collect();
            let retried = self.backoff.retry(|| self.inner.delete_batch(&again)).await?;
            for (index, result) in failed.into_iter().zip(retried) {
                results[index] = result;
            }
            attempt += 1;
        }
    }
}

/// Returns the indexes of the results that are worth another attempt.
fn list_retryable(results: &DeletionResults) -> Vec<usize> {
    let is_retryable =
        |result: &Result<(), StorageError>| result.as_ref().is_err_and(StorageError::is_retryable);
    results.iter().enumerate().filter(|(_, result)| is_retryable(result)).map(|(index, _)| index).collect()
}

/// Returns whether an earlier attempt of a write may have succeeded although its response was lost. In that
/// case the existing object is ours.
fn may_have_succeeded(failed: &FailedAttempts) -> bool {
    failed.attempts > 1 && failed.last_error.kind == StorageErrorKind::AlreadyExists
}

/// Returns whether the stored object has exactly this content.
async fn has_content(
    store: &dyn ObjectStorage,
    key: &ObjectKey,
    body: &Payload,
) -> Result<bool, StorageError> {
    if store.head(key).await?.size_bytes != body.len_bytes() {
        return Ok(false);
    }
    let mut stored = store.get(key, 0..body.len_bytes()).await?;
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

/// Returns whether two objects have the same content.
async fn have_equal_content(
    store: &dyn ObjectStorage,
    left: &ObjectKey,
    right: &ObjectKey,
) -> Result<bool, StorageError> {
    let size_bytes = store.head(left).await?.size_bytes;
    if store.head(right).await?.size_bytes != size_bytes {
        return Ok(false);
    }
    // One after the other, so that a comparison has one open download.
    for start in (0..size_bytes).step_by(PIECE_SIZE_BYTES_MAX) {
        let window = start..size_bytes.min(start + PIECE_SIZE_BYTES_MAX as u64);
        let left_bytes = store.get_bytes(left, window.clone()).await?;
        if left_bytes != store.get_bytes(right, window).await? {
            return Ok(false);
        }
    }
    Ok(true)
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
            // Drop the stream before waiting: it may hold a connection.
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
