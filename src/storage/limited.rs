//! Limits the number of concurrent operations on a store, and shares it fairly.
//!
//! An operation counts for the tenant and the caller on whose behalf it is performed ([`Holder`]), until it has
//! ended with all of its attempts. Background work has the share of one tenant. Operations that wait are served
//! in turn, so that many operations of one holder delay those of the others by one of theirs at a time.
//!
//! A download counts until its stream is dropped, because the stream holds memory and a connection. Downloads
//! have a separate limit, so that slow readers cannot block other operations. It is higher than the limit
//! of client downloads, so that slow clients cannot block other reads either.

use std::{ops::Range, sync::Arc};

use futures::StreamExt;
use tracing::{Instrument, info_span};

use super::{Attempt, ByteStream, Decorator, ObjectStorage, Operation, StorageError};
use crate::{
    admission::{Acquisition, Holder, ShareLimits, ShareStatus, Shares, Slot},
    domain::object_key::ObjectKey,
};

/// One of this many operations stays free for other tenants when idle ones are lent.
const SPARE_DIVISOR: usize = 16;

/// The limits of each store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// The maximum number of concurrent operations, without open downloads. At least 1.
    pub operations_max: usize,
    /// The maximum number of open downloads. At least 1.
    pub downloads_max: usize,
}

/// The permits of a store, which all holders share. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Permits {
    operations: Arc<Shares>,
    downloads: Arc<Shares>,
}

impl Permits {
    pub(super) fn new(limits: StoreLimits) -> Self {
        let spare = (limits.operations_max / SPARE_DIVISOR).max(1);
        // Operations are short, so idle permits are lent. A download can be read slowly.
        Self {
            operations: Shares::new(ShareLimits::slots(limits.operations_max).with_lending(spare)),
            downloads: Shares::new(ShareLimits::slots(limits.downloads_max)),
        }
    }

    /// Returns how holders share the operations.
    pub(super) fn operation_status(&self) -> ShareStatus {
        self.operations.status()
    }

    /// Returns how holders share the open downloads.
    pub(super) fn download_status(&self) -> ShareStatus {
        self.downloads.status()
    }
}

/// A store as one holder uses it.
#[derive(Debug)]
pub(super) struct Limited {
    inner: Arc<dyn ObjectStorage>,
    permits: Permits,
    holder: Holder,
}

impl Limited {
    pub(super) fn wrap(
        inner: Arc<dyn ObjectStorage>,
        permits: Permits,
        holder: Holder,
    ) -> Arc<dyn ObjectStorage> {
        Arc::new(Self { inner, permits, holder })
    }

    /// Takes a permit, and waits for it if the holder has used up its share.
    async fn acquire_permit(&self, permits: &Arc<Shares>) -> Slot {
        match permits.acquire_or_queue(self.holder, 1) {
            Acquisition::Granted(permit) => permit,
            Acquisition::Waiting(mut waiter) => {
                waiter.granted().instrument(info_span!("wait_for_storage_permit")).await
            }
        }
    }
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
            // Readiness depends on the store, not on how many operations are active. The others are rare
            // or do not send the bytes of files.
            Operation::Check
            | Operation::Initialize
            | Operation::Space
            | Operation::Presign
            | Operation::ListProtections => None,
            _ => Some(self.acquire_permit(&self.permits.operations).await),
        };
        attempt().await
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        let permit = self.acquire_permit(&self.permits.downloads).await;
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
#[path = "limited_tests.rs"]
mod tests;
