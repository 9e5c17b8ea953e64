//! One byte budget for the buffers of all uploads of this process, shared fairly between tenants.
//!
//! The buffer of a part grows as bytes arrive, so a thousand slow uploads hold little memory. Growing parts
//! could deadlock, each holding half a part; so one part at a time may be filled from a reserve outside the
//! pool, written, and released. Memory is bounded by the pool plus one part.
//!
//! An upload keeps its part size even if a smaller one has been configured since. The bytes by which a part
//! exceeds the reserve are acquired from the pool all at once, before its first byte: the part holds nothing
//! while it waits for them, and the reserve suffices for the rest.
//!
//! A tenant may hold at most [`SHARE_OF_FREE`] times the bytes that it leaves free. A single tenant gets
//! three quarters of the pool, two tenants get three sevenths each, and so on. A new tenant thus always finds
//! free bytes, however slowly the others send, without knowing the number of tenants. Waiters of one tenant
//! are served in order.
//!
//! Waiters already hold the received bytes, up to a whole chunk each. These bytes are bounded too: if too
//! many are waiting, the next request fails and the client retries.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use crate::domain::ids::TenantId;

/// The bytes that a tenant may hold, as a multiple of the free bytes.
const SHARE_OF_FREE: usize = 3;

/// How long a part waits for the bytes by which it exceeds the reserve. The reserve cannot satisfy this wait,
/// so other uploads could block it forever; a later retry may find them gone.
const BEYOND_RESERVE_WAIT_MAX: Duration = Duration::from_secs(5);

/// The byte budget. Cheap to clone.
#[derive(Clone)]
pub(in crate::app) struct ByteBudget(Arc<Pool>);

struct Pool {
    state: Mutex<State>,
    bytes_max: usize,
    waiting_bytes_max: usize,
    reserve: Arc<Semaphore>,
    reserve_bytes: usize,
}

struct State {
    free_bytes: usize,
    waiting_bytes: usize,
    /// Only tenants that hold bytes or wait for them.
    tenants: HashMap<TenantId, Tenant>,
}

#[derive(Default)]
struct Tenant {
    held_bytes: usize,
    waiting: VecDeque<(usize, oneshot::Sender<Grant>)>,
}

impl ByteBudget {
    /// Creates a budget of `bytes_max`, of which one part is set aside as the reserve. `waiting_bytes_max`
    /// limits the bytes that wait for permits in addition.
    pub(in crate::app) fn new(bytes_max: usize, part_size_bytes: usize, waiting_bytes_max: usize) -> Self {
        let bytes_max = bytes_max.saturating_sub(part_size_bytes);
        let state = Mutex::new(State { free_bytes: bytes_max, waiting_bytes: 0, tenants: HashMap::new() });
        let reserve = Arc::new(Semaphore::new(1));
        let reserve_bytes = part_size_bytes;
        Self(Arc::new(Pool { state, bytes_max, waiting_bytes_max, reserve, reserve_bytes }))
    }

    /// Returns an empty permit for a part of at most this size.
    pub(super) fn new_permit(&self, tenant: TenantId, part_size_bytes: usize) -> BytePermit {
        let beyond_reserve_bytes = part_size_bytes.saturating_sub(self.0.reserve_bytes);
        BytePermit {
            pool: Arc::clone(&self.0),
            tenant,
            held: None,
            beyond_reserve_bytes,
            ahead_bytes: 0,
            reserve: None,
        }
    }

    /// Returns the bytes held now, without the reserve.
    pub(in crate::app) fn used_bytes(&self) -> u64 {
        (self.0.bytes_max - self.0.state().free_bytes) as u64
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        // The sums are consistent after every statement, so a panic elsewhere does not corrupt them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a tenant could hold this number of bytes if no other tenant held any.
    fn can_ever_grant(&self, bytes: usize) -> bool {
        self.bytes_max.checked_sub(bytes).is_some_and(|free| bytes <= free.saturating_mul(SHARE_OF_FREE))
    }

    /// Grants the bytes at once, or queues a waiter that already holds `in_hand_bytes`.
    fn acquire(
        self: &Arc<Self>,
        tenant: TenantId,
        bytes: usize,
        in_hand_bytes: usize,
    ) -> Result<Acquisition, BudgetError> {
        let mut state = self.state();
        let has_no_waiters = state.tenants.get(&tenant).is_none_or(|tenant| tenant.waiting.is_empty());
        if has_no_waiters && state.try_take(tenant, bytes) {
            return Ok(Acquisition::Granted(Grant { pool: Arc::clone(self), tenant, bytes }));
        }
        let waiting_bytes = state.waiting_bytes.saturating_add(in_hand_bytes);
        if waiting_bytes > self.waiting_bytes_max {
            return Err(BudgetError::Overloaded);
        }
        state.waiting_bytes = waiting_bytes;
        let (granted, receiver) = oneshot::channel();
        state.tenants.entry(tenant).or_default().waiting.push_back((bytes, granted));
        Ok(Acquisition::Waiting(Waiter { pool: Arc::clone(self), tenant, in_hand_bytes, receiver }))
    }

    /// Releases bytes and serves waiters.
    fn release(self: &Arc<Self>, tenant: TenantId, bytes: usize) {
        let mut undelivered = Vec::new();
        {
            let mut state = self.state();
            state.free_bytes += bytes;
            if let Some(tenant) = state.tenants.get_mut(&tenant) {
                tenant.held_bytes -= bytes;
            }
            for (tenant, bytes, granted) in state.serve_waiters() {
                let grant = Grant { pool: Arc::clone(self), tenant, bytes };
                // The waiter may be gone. Its grant is then released through this function after the lock is
                // free again.
                undelivered.extend(granted.send(grant).err());
            }
            state.tenants.retain(|_, tenant| tenant.held_bytes > 0 || !tenant.waiting.is_empty());
        }
        drop(undelivered);
    }
}

impl State {
    /// Takes the bytes if the tenant's share allows it.
    fn try_take(&mut self, tenant: TenantId, bytes: usize) -> bool {
        let held = self.tenants.get(&tenant).map_or(0, |tenant| tenant.held_bytes) + bytes;
        let Some(free) = self.free_bytes.checked_sub(bytes) else { return false };
        if held > free.saturating_mul(SHARE_OF_FREE) {
            return false;
        }
        self.free_bytes = free;
        self.tenants.entry(tenant).or_default().held_bytes = held;
        true
    }

    /// Serves waiters whose requests fit now, in order per tenant.
    fn serve_waiters(&mut self) -> Vec<(TenantId, usize, oneshot::Sender<Grant>)> {
        let waiting = self.tenants.iter().filter(|(_, tenant)| !tenant.waiting.is_empty());
        let tenants: Vec<TenantId> = waiting.map(|(id, _)| *id).collect();
        let mut served = Vec::new();
        for id in tenants {
            while let Some((bytes, granted)) = self.pop_servable(id) {
                served.push((id, bytes, granted));
            }
        }
        served
    }

    fn pop_servable(&mut self, id: TenantId) -> Option<(usize, oneshot::Sender<Grant>)> {
        let waiting = &mut self.tenants.get_mut(&id)?.waiting;
        // Waiters that took the reserve instead, or were dropped, are skipped.
        while waiting.front().is_some_and(|(_, granted)| granted.is_closed()) {
            waiting.pop_front();
        }
        let bytes = waiting.front()?.0;
        if !self.try_take(id, bytes) {
            return None;
        }
        self.tenants.get_mut(&id)?.waiting.pop_front()
    }
}

/// Why bytes cannot be permitted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BudgetError {
    /// Too many bytes are waiting already. A retry may succeed.
    Overloaded,
    /// The part is larger than a tenant may ever hold.
    PartTooLarge,
}

/// The result of acquiring bytes.
enum Acquisition {
    Granted(Grant),
    Waiting(Waiter),
}

/// A queued request for bytes. Dropping it lets later waiters proceed.
struct Waiter {
    pool: Arc<Pool>,
    tenant: TenantId,
    in_hand_bytes: usize,
    receiver: oneshot::Receiver<Grant>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.receiver.close();
        self.pool.state().waiting_bytes -= self.in_hand_bytes;
        self.pool.release(self.tenant, 0);
    }
}

/// Bytes taken from the pool. Dropping them releases them.
struct Grant {
    pool: Arc<Pool>,
    tenant: TenantId,
    bytes: usize,
}

impl Grant {
    fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.pool.release(self.tenant, self.bytes);
        }
    }
}

/// The bytes that one part holds. Dropping the permit releases them.
pub(in crate::app::uploads) struct BytePermit {
    pool: Arc<Pool>,
    tenant: TenantId,
    held: Option<Grant>,
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
    /// Returns an error if too many bytes are waiting already, or if the part is larger than a tenant may
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
        let more = match self.pool.acquire(self.tenant, bytes, bytes)? {
            Acquisition::Granted(more) => more,
            Acquisition::Waiting(mut waiter) => tokio::select! {
                biased;
                Ok(more) = &mut waiter.receiver => more,
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
        if !self.pool.can_ever_grant(beyond_reserve_bytes) {
            return Err(BudgetError::PartTooLarge);
        }
        let beyond = match self.pool.acquire(self.tenant, beyond_reserve_bytes, in_hand_bytes)? {
            Acquisition::Granted(beyond) => beyond,
            Acquisition::Waiting(mut waiter) => {
                match timeout(BEYOND_RESERVE_WAIT_MAX, &mut waiter.receiver).await {
                    Ok(Ok(beyond)) => beyond,
                    Ok(Err(_)) | Err(_) => return Err(BudgetError::Overloaded),
                }
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
