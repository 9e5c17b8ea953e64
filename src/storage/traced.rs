//! Records a span and a metric for every operation on the store, so that the trace of a slow request shows
//! where the time went. It is outside the retries and inside `Limited`: it measures an operation
//! with all of its attempts, without the time for which it waited for its turn.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument, info_span};

use super::{Attempt, Decorator, DeletionResults, ObjectStorage, Operation, StorageError, StorageErrorKind};
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
}

fn outcome_name(kind: StorageErrorKind) -> &'static str {
    match kind {
        StorageErrorKind::NotFound => "not_found",
        StorageErrorKind::AlreadyExists => "already_exists",
        StorageErrorKind::Transient => "transient",
        StorageErrorKind::Unavailable => "unavailable",
        StorageErrorKind::NoSpace => "no_space",
        StorageErrorKind::Damaged => "damaged",
        StorageErrorKind::PartsDiffer => "parts_differ",
        StorageErrorKind::InvalidInput => "invalid_input",
        StorageErrorKind::Other => "other",
    }
}

impl Decorator for Traced {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.inner
    }

    async fn decorate<'a, T: Send>(
        &'a self,
        operation: Operation,
        attempt: impl Fn() -> Attempt<'a, T> + Send,
    ) -> Result<T, StorageError> {
        let operation = operation.name();
        let started = Instant::now();
        let span = info_span!("storage", operation, provider = self.inner.provider());
        let outcome = attempt().instrument(span).await;
        let name = match &outcome {
            Ok(_) => "ok",
            Err(error) => outcome_name(error.kind),
        };
        self.metrics.record_storage_operation(operation, name, started.elapsed());
        outcome
    }

    /// A batch has the outcome of the first key that failed.
    async fn delete_batch(&self, keys: &[ObjectKey]) -> Result<DeletionResults, StorageError> {
        let operation = Operation::DeleteBatch.name();
        let started = Instant::now();
        let span = info_span!("storage", operation, provider = self.inner.provider(), keys = keys.len());
        let outcome = self.inner.delete_batch(keys).instrument(span).await;
        let failure = match &outcome {
            Ok(results) => results.iter().find_map(|result| result.as_ref().err()),
            Err(error) => Some(error),
        };
        let name = failure.map_or("ok", |error| outcome_name(error.kind));
        self.metrics.record_storage_operation(operation, name, started.elapsed());
        outcome
    }
}
