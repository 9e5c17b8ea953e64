//! Records a span and a metric for every operation on the store, so that the trace of a slow request shows
//! where the time went. This is the outermost decorator: it measures what callers experience, including
//! retries.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use super::{
    ByteStream, Capabilities, InitOptions, InitReport, ListPage, MultipartId, MultipartInfo, MultipartPage,
    ObjectInfo, ObjectStorage, PartReceipt, Payload, PresignRequest, PresignedUrl, PutOptions, Space,
    StorageError, StorageErrorKind,
};
use crate::{domain::object_key::ObjectKey, telemetry::Metrics};

/// Adds tracing and metrics to a store.
#[derive(Clone)]
pub struct Traced {
    inner: Arc<dyn ObjectStorage>,
    metrics: Metrics,
}

impl std::fmt::Debug for Traced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Traced").field(&self.inner).finish()
    }
}

impl Traced {
    /// Wraps a store.
    pub fn wrap(inner: Arc<dyn ObjectStorage>, metrics: Metrics) -> Arc<dyn ObjectStorage> {
        Arc::new(Self { inner, metrics })
    }

    async fn trace<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        let started = Instant::now();
        let outcome =
            call.instrument(info_span!("storage", operation, provider = self.inner.provider())).await;
        let name = match &outcome {
            Ok(_) => "ok",
            Err(error) => outcome_name(error.kind),
        };
        self.metrics.record_storage_operation(operation, name, started.elapsed());
        outcome
    }
}

fn outcome_name(kind: StorageErrorKind) -> &'static str {
    match kind {
        StorageErrorKind::NotFound => "not_found",
        StorageErrorKind::AlreadyExists => "already_exists",
        StorageErrorKind::Transient => "transient",
        StorageErrorKind::Unavailable => "unavailable",
        StorageErrorKind::NoSpace => "no_space",
        StorageErrorKind::Damaged => "damaged",
        StorageErrorKind::InvalidInput => "invalid_input",
        StorageErrorKind::Other => "other",
    }
}

#[async_trait]
impl ObjectStorage for Traced {
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
        self.trace("put", self.inner.put(key, body, options)).await
    }

    async fn start_multipart(
        &self,
        key: &ObjectKey,
        part_size_bytes: u64,
        options: &PutOptions,
    ) -> Result<MultipartId, StorageError> {
        self.trace("start_multipart", self.inner.start_multipart(key, part_size_bytes, options)).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: Payload,
    ) -> Result<PartReceipt, StorageError> {
        self.trace("put_part", self.inner.put_part(key, id, number, body)).await
    }

    async fn complete_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        parts: &[PartReceipt],
    ) -> Result<ObjectInfo, StorageError> {
        self.trace("complete_multipart", self.inner.complete_multipart(key, id, parts)).await
    }

    async fn abort_multipart(&self, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError> {
        self.trace("abort_multipart", self.inner.abort_multipart(key, id)).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StorageError> {
        self.trace("head", self.inner.head(key)).await
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        self.trace("get", self.inner.get(key, range)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.trace("delete", self.inner.delete(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<ListPage, StorageError> {
        self.trace("list", self.inner.list(prefix, after, limit)).await
    }

    async fn list_multiparts(
        &self,
        prefix: &str,
        after: Option<&MultipartInfo>,
        limit: usize,
    ) -> Result<MultipartPage, StorageError> {
        self.trace("list_multiparts", self.inner.list_multiparts(prefix, after, limit)).await
    }

    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        self.trace("copy", self.inner.copy(from, to, options)).await
    }

    async fn list_parts(&self, key: &ObjectKey, id: &MultipartId) -> Result<Vec<PartReceipt>, StorageError> {
        self.trace("list_parts", self.inner.list_parts(key, id)).await
    }

    async fn presign(&self, request: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError> {
        self.trace("presign", self.inner.presign(request)).await
    }

    async fn initialize(&self, options: &InitOptions) -> Result<InitReport, StorageError> {
        self.trace("initialize", self.inner.initialize(options)).await
    }

    async fn space(&self) -> Result<Option<Space>, StorageError> {
        self.trace("space", self.inner.space()).await
    }

    async fn check(&self) -> Result<(), StorageError> {
        self.trace("check", self.inner.check()).await
    }
}
