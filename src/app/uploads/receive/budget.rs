//! One byte budget for the buffers of all uploads of this process, shared fairly between tenants and callers
//! ([`Shares`]).
//!
//! The buffer of a part grows as bytes arrive, so a thousand slow uploads hold little memory. Growing parts
//! could deadlock, each holding half a part; so one part at a time may be filled from a reserve outside the
//! pool, written, and released. Memory is bounded by the pool plus one part.
//!
//! An upload keeps its part size even if a smaller one has been configured since. The bytes by which a part
//! exceeds the reserve are acquired from the pool all at once, before its first byte: the part holds nothing
//! while it waits for them, and the reserve suffices for the rest.
//!
//! Waiters already hold the received bytes, up to a whole chunk each. These bytes are bounded too, and shared
//! fairly: if a caller has too many waiting, its next request fails and the client retries.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::admission::{Acquisition, Holder, ShareLimits, ShareStatus, Shares, Slot, Waiter};

/// How long a part waits for the bytes by which it exceeds the reserve. The reserve cannot satisfy this wait,
/// so other uploads could block it forever; a later retry may find them gone.
const BEYOND_RESERVE_WAIT_MAX: Duration = Duration::from_secs(5);

/// The byte budget. Cheap to clone.
#[derive(Clone)]
pub(in crate::app) struct ByteBudget(Arc<Pool>);

struct Pool {
    bytes: Arc<Shares>,
    /// The received bytes of waiters.
    waiting_bytes: Arc<Shares>,
    reserve: Arc<Semaphore>,
    reserve_bytes: usize,
}

impl ByteBudget {
    /// Creates a budget of `bytes_max`, of which one part is set aside as the reserve. `waiting_bytes_max`
    /// limits the bytes that wait for permits in addition.
    pub(in crate::app) fn new(bytes_max: usize, part_size_bytes: usize, waiting_bytes_max: usize) -> Self {
        let bytes = Shares::new(ShareLimits::weighted(bytes_max.saturating_sub(part_size_bytes)));
        // A single chunk or part may wait, however small the limit is.
        let waiting = ShareLimits { rounding: part_size_bytes, ..ShareLimits::weighted(waiting_bytes_max) };
        let waiting_bytes = Shares::new(waiting);
        let reserve = Arc::new(Semaphore::new(1));
        Self(Arc::new(Pool { bytes, waiting_bytes, reserve, reserve_bytes: part_size_bytes }))
    }

    /// Returns an empty permit for a part of at most this size.
    pub(super) fn new_permit(&self, holder: Holder, part_size_bytes: usize) -> BytePermit {
        let beyond_reserve_bytes = part_size_bytes.saturating_sub(self.0.reserve_bytes);
        BytePermit {
            pool: Arc::clone(&self.0),
            holder,
            held: None,
            beyond_reserve_bytes,
            ahead_bytes: 0,
            reserve: None,
        }
    }

    /// Returns the bytes held now, without the reserve.
    pub(in crate::app) fn used_bytes(&self) -> u64 {
        self.0.bytes.status().in_use as u64
    }

    /// Returns the use of the pool.
    pub(in crate::app) fn status(&self) -> ShareStatus {
        self.0.bytes.status()
    }
}

impl Pool {
    /// Grants the bytes at once, or queues a waiter that already holds `in_hand_bytes`.
    fn acquire(&self, holder: Holder, bytes: usize, in_hand_bytes: usize) -> Result<Grant, BudgetError> {
        match self.bytes.acquire_or_queue(holder, bytes) {
            Acquisition::Granted(slot) => Ok(Grant::Now(slot)),
            Acquisition::Waiting(waiter) => {
                let in_hand = self.waiting_bytes.try_acquire(holder, in_hand_bytes);
                let in_hand = in_hand.map_err(|_| BudgetError::Overloaded)?;
                Ok(Grant::Later(QueuedGrant { waiter, _in_hand: in_hand }))
            }
        }
    }
}

/// Bytes of the pool, or a place in the queue for them.
enum Grant {
    Now(Slot),
    Later(QueuedGrant),
}

struct QueuedGrant {
    waiter: Waiter,
    /// The received bytes, which count while they wait.
    _in_hand: Slot,
}

/// Why bytes cannot be permitted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BudgetError {
    /// Too many bytes are waiting already. A retry may succeed.
    Overloaded,
    /// The part is larger than a caller may ever hold.
    PartTooLarge,
}

/// The bytes that one part holds. Dropping the permit releases them.
pub(in crate::app::uploads) struct BytePermit {
    pool: Arc<Pool>,
    holder: Holder,
    held: Option<Slot>,
    /// The bytes by which the part exceeds the reserve, as long as they are not acquired.
    beyond_reserve_bytes: usize,
    /// Bytes acquired ahead of the received data.
    ahead_bytes: usize,
    reserve: Option<OwnedSemaphorePermit>,
}

impl BytePermit {
    /// Waits until `bytes` more are permitted.
    ///
    /// # Errors
    /// Returns an error if too many bytes are waiting already, or if the part is larger than a caller may
    /// ever hold.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), BudgetError> {
        if self.beyond_reserve_bytes > 0 {
            self.grow_beyond_reserve(bytes).await?;
        }
        let prepaid = bytes.min(self.ahead_bytes);
        self.ahead_bytes -= prepaid;
        let bytes = bytes - prepaid;
        if bytes == 0 || self.reserve.is_some() {
            return Ok(());
        }
        let more = match self.pool.acquire(self.holder, bytes, bytes)? {
            Grant::Now(more) => more,
            Grant::Later(mut queued) => tokio::select! {
                biased;
                more = queued.waiter.granted() => more,
                Ok(reserve) = Arc::clone(&self.pool.reserve).acquire_owned() => {
                    self.reserve = Some(reserve);
                    return Ok(());
                }
            },
        };
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    /// Acquires the bytes by which the part exceeds the reserve, before its first bytes.
    async fn grow_beyond_reserve(&mut self, in_hand_bytes: usize) -> Result<(), BudgetError> {
        let beyond_reserve_bytes = self.beyond_reserve_bytes;
        if !self.pool.bytes.can_ever_grant(self.holder, beyond_reserve_bytes) {
            return Err(BudgetError::PartTooLarge);
        }
        let beyond = match self.pool.acquire(self.holder, beyond_reserve_bytes, in_hand_bytes)? {
            Grant::Now(beyond) => beyond,
            Grant::Later(mut queued) => {
                let granted = timeout(BEYOND_RESERVE_WAIT_MAX, queued.waiter.granted()).await;
                granted.map_err(|_elapsed| BudgetError::Overloaded)?
            }
        };
        self.held = Some(beyond);
        (self.ahead_bytes, self.beyond_reserve_bytes) = (beyond_reserve_bytes, 0);
        Ok(())
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
