//! A fault-injecting decorator for tests. It fails a call before or after it takes effect (a lost response),
//! breaks off a download, flips a bit, reports a full disk, or holds writes as a slow store does. The same plan and
//! the same calls produce the same faults.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt, StreamExt, stream};
use tokio::sync::watch;

pub use super::Operation;
use super::{
    Attempt, ByteStream, Capabilities, Decorator, DeletionResults, MultipartId, ObjectInfo, ObjectStorage,
    PartReceipt, Payload, PutOptions, StorageError, StorageErrorKind, object::check_delete_batch,
};
use crate::domain::{object_key::ObjectKey, storage_class::StorageClass};

/// A fault of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails without having any effect.
    Before(StorageErrorKind),
    /// The call takes effect but returns an error.
    After(StorageErrorKind),
    /// A download ends with a `Transient` error after `after_bytes` bytes. Ignored by other operations.
    CutStream {
        /// Bytes that still arrive.
        after_bytes: u64,
    },
    /// A download ends after `after_bytes` bytes without an error, as if the object were complete. Ignored by
    /// other operations.
    EndStream {
        /// Bytes that still arrive.
        after_bytes: u64,
    },
    /// The first bit of a download is inverted. Ignored by other operations.
    FlipBit,
    /// The call never returns. It ends when its future is dropped.
    Hang,
    /// The call panics, as a bug of an adapter does.
    Panic,
}

/// The faults to inject.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    calls: HashMap<(Operation, u64), Fault>,
    all_calls: HashMap<Operation, Fault>,
    random: Option<Random>,
    capacity_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Random {
    seed: u64,
    percent: u64,
}

impl Plan {
    /// Creates a plan without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Injects a fault into the `nth` call of an operation, counted from 1.
    #[must_use]
    pub fn with_fault(mut self, operation: Operation, nth: u64, fault: Fault) -> Self {
        self.calls.insert((operation, nth), fault);
        self
    }

    /// Injects a fault into every call of an operation.
    #[must_use]
    pub fn with_fault_in_all(mut self, operation: Operation, fault: Fault) -> Self {
        self.all_calls.insert(operation, fault);
        self
    }

    /// Injects transient faults into `percent` of all calls, before or after they take effect. Downloads are
    /// also cut.
    #[must_use]
    pub fn with_random_faults(mut self, seed: u64, percent: u64) -> Self {
        self.random = Some(Random { seed, percent });
        self
    }

    /// Makes puts and parts fail with `NoSpace` once their total size would exceed `capacity_bytes`.
    #[must_use]
    pub fn with_capacity_bytes(mut self, capacity_bytes: u64) -> Self {
        self.capacity_bytes = Some(capacity_bytes);
        self
    }

    fn fault(&self, operation: Operation, nth: u64) -> Option<Fault> {
        let planned = self.calls.get(&(operation, nth)).or_else(|| self.all_calls.get(&operation));
        planned.copied().or_else(|| self.random?.fault(operation, nth))
    }
}

impl Random {
    fn fault(self, operation: Operation, nth: u64) -> Option<Fault> {
        let dice = mix(self.seed ^ mix(((operation as u64) << 56) ^ nth));
        if dice % 100 >= self.percent {
            return None;
        }
        Some(match (dice >> 32) % 4 {
            0 if operation == Operation::Get => Fault::CutStream { after_bytes: (dice >> 40) % 100_000 },
            1 if operation == Operation::Get => Fault::EndStream { after_bytes: (dice >> 40) % 100_000 },
            0 | 1 => Fault::After(StorageErrorKind::Transient),
            _ => Fault::Before(StorageErrorKind::Transient),
        })
    }
}

/// `SplitMix64`: evenly distributed and the same on every platform.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A store with injected faults. See the [module](self).
#[derive(Debug)]
pub struct Flaky {
    inner: Arc<dyn ObjectStorage>,
    state: Mutex<State>,
    /// Requested storage classes by key; `None` unless storage classes are enabled.
    classes: Mutex<Option<HashMap<String, StorageClass>>>,
    /// The text of the keys whose writes wait.
    held: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct State {
    plan: Plan,
    calls: HashMap<Operation, u64>,
    written_bytes: u64,
}

impl Flaky {
    /// Wraps a store and injects the faults of a plan.
    pub fn new(inner: Arc<dyn ObjectStorage>, plan: Plan) -> Arc<Self> {
        let state = State { plan, calls: HashMap::new(), written_bytes: 0 };
        let held = watch::Sender::new(None);
        Arc::new(Self { inner, state: Mutex::new(state), classes: Mutex::default(), held })
    }

    /// Reports storage classes as supported from now on and records the requested class of each object.
    pub fn enable_storage_classes(&self) {
        *self.classes.lock().unwrap_or_else(PoisonError::into_inner) = Some(HashMap::new());
    }

    /// Returns the class that the object was put or copied with, if storage classes are enabled.
    pub fn storage_class(&self, key: &str) -> Option<StorageClass> {
        let classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        classes.as_ref().and_then(|classes| classes.get(key).copied())
    }

    fn record_class(&self, key: &ObjectKey, options: &PutOptions) {
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(classes) = classes.as_mut() {
            classes.insert(key.to_string(), options.class);
        }
    }

    /// Makes puts and parts wait whose keys contain this text, for example the id of a tenant, until
    /// [`Self::release_writes`] is called.
    pub fn hold_writes(&self, key_text: &str) {
        self.held.send_replace(Some(key_text.to_owned()));
    }

    /// Lets the writes continue that wait because of [`Self::hold_writes`].
    pub fn release_writes(&self) {
        self.held.send_replace(None);
    }

    /// Returns how many writes wait because of [`Self::hold_writes`].
    pub fn waiting_writes(&self) -> usize {
        self.held.receiver_count()
    }

    async fn wait_while_held(&self, key: &ObjectKey) {
        let is_held =
            |held: &Option<String>| held.as_ref().is_some_and(|text| key.as_str().contains(text.as_str()));
        if is_held(&self.held.borrow()) {
            // The sender is part of `self`, so the channel is not closed.
            drop(self.held.subscribe().wait_for(|held| !is_held(held)).await);
        }
    }

    /// Returns how often an operation was called since the plan was set.
    pub fn call_count(&self, operation: Operation) -> u64 {
        self.state().calls.get(&operation).copied().unwrap_or_default()
    }

    /// Replaces the plan, and resets the call counts and the number of written bytes.
    pub fn set_plan(&self, plan: Plan) {
        *self.state() = State { plan, calls: HashMap::new(), written_bytes: 0 };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call and returns its fault.
    fn next_fault(&self, operation: Operation) -> Option<Fault> {
        let mut state = self.state();
        let calls = state.calls.entry(operation).or_default();
        *calls += 1;
        let nth = *calls;
        state.plan.fault(operation, nth)
    }

    fn reserve_capacity(&self, operation: Operation, body: &Payload) -> Result<(), StorageError> {
        let mut state = self.state();
        let written_bytes = state.written_bytes.saturating_add(body.len_bytes());
        if state.plan.capacity_bytes.is_some_and(|capacity_bytes| written_bytes > capacity_bytes) {
            return Err(planned_error(StorageErrorKind::NoSpace, operation));
        }
        state.written_bytes = written_bytes;
        Ok(())
    }
}

fn planned_error(kind: StorageErrorKind, operation: Operation) -> StorageError {
    StorageError::new(kind, operation.verb_phrase()).with_source("injected fault")
}

fn cut_stream(stream: ByteStream, after_bytes: u64, error: Option<StorageError>) -> ByteStream {
    let pieces = stream.scan(after_bytes, |left, piece| {
        let piece = piece.map(|bytes| {
            let kept = bytes.slice(..bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX)));
            *left -= kept.len() as u64;
            kept
        });
        let has_ended = matches!(&piece, Ok(bytes) if bytes.is_empty());
        std::future::ready((!has_ended).then_some(piece))
    });
    pieces.chain(stream::iter(error.map(Err))).boxed()
}

fn flip_first_bit(stream: ByteStream) -> ByteStream {
    let pieces = stream.enumerate().map(|(nth, piece)| {
        piece.map(|bytes| {
            let mut bytes = bytes.to_vec();
            if let Some(first) = bytes.first_mut().filter(|_| nth == 0) {
                *first ^= 1;
            }
            bytes.into()
        })
    });
    pieces.boxed()
}

impl Decorator for Flaky {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.inner
    }

    async fn decorate<'a, T: Send>(
        &'a self,
        operation: Operation,
        attempt: impl Fn() -> Attempt<'a, T> + Send,
    ) -> Result<T, StorageError> {
        let fault = self.next_fault(operation);
        if operation == Operation::Copy {
            // Tests stop a copy here, where it holds no locks.
            tokio::task::yield_now().await;
        }
        match fault {
            Some(Fault::Before(kind)) => Err(planned_error(kind, operation)),
            Some(Fault::After(kind)) => attempt().await.and_then(|_| Err(planned_error(kind, operation))),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Panic) => panic!("planned panic"),
            _ => attempt().await,
        }
    }

    fn capabilities(&self) -> Capabilities {
        let has_classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let capabilities = self.inner.capabilities();
        Capabilities { storage_classes: capabilities.storage_classes || has_classes, ..capabilities }
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Payload,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let body = &body;
        let put = || {
            async move {
                self.wait_while_held(key).await;
                self.reserve_capacity(Operation::Put, body)?;
                self.record_class(key, options);
                self.inner.put(key, body.clone(), options).await
            }
            .boxed()
        };
        self.decorate(Operation::Put, put).await
    }

    async fn start_multipart(
        &self,
        key: &ObjectKey,
        part_size_bytes: u64,
        options: &PutOptions,
    ) -> Result<MultipartId, StorageError> {
        self.record_class(key, options);
        let start = || self.inner.start_multipart(key, part_size_bytes, options);
        self.decorate(Operation::StartMultipart, start).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: Payload,
    ) -> Result<PartReceipt, StorageError> {
        let body = &body;
        let put = || {
            async move {
                self.wait_while_held(key).await;
                self.reserve_capacity(Operation::PutPart, body)?;
                self.inner.put_part(key, id, number, body.clone()).await
            }
            .boxed()
        };
        self.decorate(Operation::PutPart, put).await
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        let fault = self.next_fault(Operation::Get);
        if let Some(Fault::Before(kind)) = fault {
            return Err(planned_error(kind, Operation::Get));
        }
        if fault == Some(Fault::Hang) {
            return std::future::pending().await;
        }
        assert!(fault != Some(Fault::Panic), "planned panic");
        let stream = self.inner.get(key, range).await?;
        match fault {
            Some(Fault::After(kind)) => Err(planned_error(kind, Operation::Get)),
            Some(Fault::CutStream { after_bytes }) => Ok(cut_stream(
                stream,
                after_bytes,
                Some(planned_error(StorageErrorKind::Transient, Operation::Get)),
            )),
            Some(Fault::EndStream { after_bytes }) => Ok(cut_stream(stream, after_bytes, None)),
            Some(Fault::FlipBit) => Ok(flip_first_bit(stream)),
            _ => Ok(stream),
        }
    }

    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        self.record_class(to, options);
        self.decorate(Operation::Copy, || self.inner.copy(from, to, options)).await
    }

    /// Each key also counts as a call of `delete`, and has the fault of that call: a batch can fail as a whole
    /// or in part.
    async fn delete_batch(&self, keys: &[ObjectKey]) -> Result<DeletionResults, StorageError> {
        check_delete_batch(keys)?;
        let faults: Vec<_> = keys.iter().map(|_| self.next_fault(Operation::Delete)).collect();
        if faults.contains(&Some(Fault::Hang)) {
            return std::future::pending().await;
        }
        let is_sent = |fault: &Option<Fault>| !matches!(fault, Some(Fault::Before(_)));
        let sent = keys.iter().zip(&faults).filter(|(_, fault)| is_sent(fault));
        let sent: Vec<ObjectKey> = sent.map(|(key, _)| key.clone()).collect();
        let mut results =
            self.decorate(Operation::DeleteBatch, || self.inner.delete_batch(&sent)).await?.into_iter();
        let lost = || Err(planned_error(StorageErrorKind::Other, Operation::DeleteBatch));
        let result = |fault| match fault {
            Some(Fault::Before(kind)) => Err(planned_error(kind, Operation::Delete)),
            Some(Fault::After(kind)) => {
                results.next().unwrap_or_else(lost).and(Err(planned_error(kind, Operation::Delete)))
            }
            _ => results.next().unwrap_or_else(lost),
        };
        Ok(faults.into_iter().map(result).collect())
    }
}
