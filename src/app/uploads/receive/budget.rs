//! One byte budget for the buffers of all uploads of this process, shared fairly between tenants.
//!
//! A part's buffer grows with the bytes that arrive, so a thousand slow uploads hold little. Growing parts could wait for
//! each other for ever, each with half a part; so one at a time may fill its part from a reserve beside the pool, write
//! it out and give its room back. Memory is bounded by the pool plus one part.
//!
//! An upload keeps the size of its parts, also when a smaller one was configured since. What a part has beyond the reserve it
//! takes from the pool before its first byte, all at once: it holds nothing while it waits for that, and the reserve is enough
//! for the rest.
//!
//! A tenant may hold at most [`SHARE_OF_FREE`] times what it leaves free. Alone it gets three quarters of the pool, two
//! get three sevenths each, and so on: whoever comes later always finds some room, however slowly the others send, and no
//! number of tenants needs to be known beforehand. Who waits is served in turn within a tenant.
//!
//! Whoever waits has the bytes in hand already, up to a whole chunk. These are bounded too: when too many wait, the next
//! is refused and told to come again.

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

/// How often what is free a tenant may hold.
const SHARE_OF_FREE: usize = 3;

/// How long a part waits for what it has beyond the reserve. The reserve does not help it there, so others might keep it up for
/// ever; whoever comes again later finds them gone.
const BEYOND_WAIT_MAX: Duration = Duration::from_secs(5);

/// The budget. Cheap to clone.
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
    /// Only tenants that hold something or wait for something.
    tenants: HashMap<TenantId, Tenant>,
}

#[derive(Default)]
struct Tenant {
    held_bytes: usize,
    waiting: VecDeque<(usize, oneshot::Sender<Grant>)>,
}

impl ByteBudget {
    /// A pool of `bytes_max`, of which one part is kept as the reserve, and beside it what may wait for room.
    pub(in crate::app) fn new(bytes_max: usize, part_size_bytes: usize, waiting_bytes_max: usize) -> Self {
        let bytes_max = bytes_max.saturating_sub(part_size_bytes);
        let state = Mutex::new(State { free_bytes: bytes_max, waiting_bytes: 0, tenants: HashMap::new() });
        let reserve = Arc::new(Semaphore::new(1));
        let reserve_bytes = part_size_bytes;
        Self(Arc::new(Pool { state, bytes_max, waiting_bytes_max, reserve, reserve_bytes }))
    }

    /// The room of a tenant's part of at most this size, that holds nothing yet.
    pub(super) fn room(&self, tenant: TenantId, part_size_bytes: usize) -> Room {
        let beyond_bytes = part_size_bytes.saturating_sub(self.0.reserve_bytes);
        Room { pool: Arc::clone(&self.0), tenant, held: None, beyond_bytes, ahead_bytes: 0, reserve: None }
    }

    /// How many bytes are held now, without the reserve.
    pub(in crate::app) fn used_bytes(&self) -> u64 {
        (self.0.bytes_max - self.0.state().free_bytes) as u64
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        // The sums are right after every statement; a panic elsewhere does not spoil them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a tenant may hold so much at once where nobody else holds anything.
    fn could_give(&self, bytes: usize) -> bool {
        self.bytes_max.checked_sub(bytes).is_some_and(|free| bytes <= free.saturating_mul(SHARE_OF_FREE))
    }

    /// Room that is there at once, or a promise of it, for whoever has `in_hand_bytes` already.
    fn ask(self: &Arc<Self>, tenant: TenantId, bytes: usize, in_hand_bytes: usize) -> Result<Asked, NoRoom> {
        let mut state = self.state();
        let nobody_waits = state.tenants.get(&tenant).is_none_or(|tenant| tenant.waiting.is_empty());
        if nobody_waits && state.take(tenant, bytes) {
            return Ok(Asked::Granted(Grant { pool: Arc::clone(self), tenant, bytes }));
        }
        let waiting_bytes = state.waiting_bytes.saturating_add(in_hand_bytes);
        if waiting_bytes > self.waiting_bytes_max {
            return Err(NoRoom::TooManyWait);
        }
        state.waiting_bytes = waiting_bytes;
        let (granted, receiver) = oneshot::channel();
        state.tenants.entry(tenant).or_default().waiting.push_back((bytes, granted));
        Ok(Asked::Waits(Promise { pool: Arc::clone(self), tenant, in_hand_bytes, receiver }))
    }

    /// Takes bytes back, and serves those who wait.
    fn give_back(self: &Arc<Self>, tenant: TenantId, bytes: usize) {
        let mut unwanted = Vec::new();
        {
            let mut state = self.state();
            state.free_bytes += bytes;
            if let Some(tenant) = state.tenants.get_mut(&tenant) {
                tenant.held_bytes -= bytes;
            }
            for (tenant, bytes, granted) in state.serve() {
                let grant = Grant { pool: Arc::clone(self), tenant, bytes };
                // Whoever waited may be gone. Its grant comes back through here, when the lock is free again.
                unwanted.extend(granted.send(grant).err());
            }
            state.tenants.retain(|_, tenant| tenant.held_bytes > 0 || !tenant.waiting.is_empty());
        }
        drop(unwanted);
    }
}

impl State {
    /// Takes the bytes if the tenant's share has room for them.
    fn take(&mut self, tenant: TenantId, bytes: usize) -> bool {
        let held = self.tenants.get(&tenant).map_or(0, |tenant| tenant.held_bytes) + bytes;
        let Some(free) = self.free_bytes.checked_sub(bytes) else { return false };
        if held > free.saturating_mul(SHARE_OF_FREE) {
            return false;
        }
        self.free_bytes = free;
        self.tenants.entry(tenant).or_default().held_bytes = held;
        true
    }

    /// Takes what waits and fits now; within a tenant nobody overtakes.
    fn serve(&mut self) -> Vec<(TenantId, usize, oneshot::Sender<Grant>)> {
        let waiting = self.tenants.iter().filter(|(_, tenant)| !tenant.waiting.is_empty());
        let tenants: Vec<TenantId> = waiting.map(|(id, _)| *id).collect();
        let mut served = Vec::new();
        for id in tenants {
            while let Some((bytes, granted)) = self.next(id) {
                served.push((id, bytes, granted));
            }
        }
        served
    }

    fn next(&mut self, id: TenantId) -> Option<(usize, oneshot::Sender<Grant>)> {
        let waiting = &mut self.tenants.get_mut(&id)?.waiting;
        // Those who took the reserve instead, or left, do not wait any more.
        while waiting.front().is_some_and(|(_, granted)| granted.is_closed()) {
            waiting.pop_front();
        }
        let bytes = waiting.front()?.0;
        if !self.take(id, bytes) {
            return None;
        }
        self.tenants.get_mut(&id)?.waiting.pop_front()
    }
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Not now, and too many wait for it.
    TooManyWait,
    /// Never: a part of this size is more than a tenant may hold here.
    PartTooLarge,
}

/// What came of asking for room.
enum Asked {
    Granted(Grant),
    Waits(Promise),
}

/// A place among those who wait. Leaving it lets the others move up.
struct Promise {
    pool: Arc<Pool>,
    tenant: TenantId,
    in_hand_bytes: usize,
    receiver: oneshot::Receiver<Grant>,
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.receiver.close();
        self.pool.state().waiting_bytes -= self.in_hand_bytes;
        self.pool.give_back(self.tenant, 0);
    }
}

/// Bytes of the pool. Dropping them gives them back.
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
            self.pool.give_back(self.tenant, self.bytes);
        }
    }
}

/// What one part holds of the budget. Dropping it gives everything back.
pub(in crate::app::uploads) struct Room {
    pool: Arc<Pool>,
    tenant: TenantId,
    held: Option<Grant>,
    /// What its part has beyond the reserve, and it has not asked for.
    beyond_bytes: usize,
    /// What it holds before there are bytes for it.
    ahead_bytes: usize,
    reserve: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Waits for room for so many bytes more.
    ///
    /// # Errors
    /// When too many wait already; when the part is larger than what there can be room for.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if self.beyond_bytes > 0 {
            self.reach_beyond(bytes).await?;
        }
        let paid = bytes.min(self.ahead_bytes);
        self.ahead_bytes -= paid;
        let bytes = bytes - paid;
        if bytes == 0 || self.reserve.is_some() {
            return Ok(());
        }
        let more = match self.pool.ask(self.tenant, bytes, bytes)? {
            Asked::Granted(more) => more,
            Asked::Waits(mut promise) => tokio::select! {
                biased;
                Ok(more) = &mut promise.receiver => more,
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

    /// Takes what the part has beyond the reserve, before its first bytes are.
    async fn reach_beyond(&mut self, in_hand_bytes: usize) -> Result<(), NoRoom> {
        let beyond_bytes = self.beyond_bytes;
        if !self.pool.could_give(beyond_bytes) {
            return Err(NoRoom::PartTooLarge);
        }
        let beyond = match self.pool.ask(self.tenant, beyond_bytes, in_hand_bytes)? {
            Asked::Granted(beyond) => beyond,
            Asked::Waits(mut promise) => match timeout(BEYOND_WAIT_MAX, &mut promise.receiver).await {
                Ok(Ok(beyond)) => beyond,
                Ok(Err(_)) | Err(_) => return Err(NoRoom::TooManyWait),
            },
        };
        self.held = Some(beyond);
        (self.ahead_bytes, self.beyond_bytes) = (beyond_bytes, 0);
        Ok(())
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
