//! A pool of units that is shared fairly.
//!
//! A tenant may hold at most [`SHARE_OF_FREE`] times the units that it leaves free, and a caller of the tenant
//! at most that multiple of the units that it leaves free to the tenant's other callers. A tenant that is
//! alone gets three quarters of the pool, two tenants get three sevenths each, and so on; a caller that is
//! alone gets three quarters of that. A new tenant thus always finds free units, however long the others hold
//! theirs, without knowing the number of tenants. So does a new caller of a tenant.
//!
//! Some units may be reserved for operators and the service itself, who have no share.
//!
//! A pool may lend the units that would stay idle: see [`ShareLimits::with_lending`].
//!
//! Waiters are served one tenant after the other. Within a tenant, the caller that holds the least is served
//! first, and each caller in order of arrival. A caller that has used up its share does not block later waiters.

mod holdings;
mod limits;
mod slot;
#[cfg(test)]
mod tests;

use std::{
    ops::Add,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use self::holdings::{State, Waiting};
pub use self::{
    limits::{SHARE_OF_FREE, ShareLimits},
    slot::{Slot, Waiter},
};
use super::holder::Holder;

/// Why units are not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// The caller holds its share.
    Caller,
    /// The tenant, or the address, holds its share.
    Tenant,
    /// The tenant holds as many units as any tenant may.
    TenantMax,
    /// Too few units are free.
    Process,
}

/// The use of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShareStatus {
    /// The number of units.
    pub capacity: usize,
    /// The units that are held.
    pub in_use: usize,
    /// The number of waiters.
    pub waiting: usize,
    /// The number of requests that were not granted because of the share of the caller.
    pub refused_caller: u64,
    /// The number of requests that were not granted because of the share of the tenant.
    pub refused_tenant: u64,
    /// The number of requests that were not granted because too few units were free.
    pub refused_process: u64,
}

impl Add for ShareStatus {
    type Output = Self;

    /// Adds the use of another pool of the same resource.
    fn add(self, other: Self) -> Self {
        Self {
            capacity: self.capacity + other.capacity,
            in_use: self.in_use + other.in_use,
            waiting: self.waiting + other.waiting,
            refused_caller: self.refused_caller + other.refused_caller,
            refused_tenant: self.refused_tenant + other.refused_tenant,
            refused_process: self.refused_process + other.refused_process,
        }
    }
}

/// A pool of units that is shared fairly.
#[derive(Debug)]
pub struct Shares {
    limits: ShareLimits,
    state: Mutex<State>,
}

/// The result of a request for units.
#[derive(Debug)]
pub enum Acquisition {
    Granted(Slot),
    Waiting(Waiter),
}

impl Shares {
    /// Creates a pool in which all units are free.
    pub fn new(limits: ShareLimits) -> Arc<Self> {
        let state = State { free: limits.capacity, ..State::default() };
        Arc::new(Self { limits, state: Mutex::new(state) })
    }

    /// Takes units at once.
    ///
    /// # Errors
    /// Returns `Exhausted` if the shares do not allow it, or if an earlier request of the same caller waits.
    pub fn try_acquire(self: &Arc<Self>, holder: Holder, units: usize) -> Result<Slot, Exhausted> {
        let mut state = self.state();
        let taken = match state.has_waiters(holder) {
            true => Err(Exhausted::Caller),
            false => state.try_take(&self.limits, holder, units),
        };
        state.count_refusal(taken);
        taken.map(|()| self.slot(holder, units))
    }

    /// Takes units at once, or queues a request for them.
    pub fn acquire_or_queue(self: &Arc<Self>, holder: Holder, units: usize) -> Acquisition {
        let mut state = self.state();
        let reason = match state.has_waiters(holder) {
            true => Exhausted::Caller,
            false => match state.try_take(&self.limits, holder, units) {
                Ok(()) => return Acquisition::Granted(self.slot(holder, units)),
                Err(reason) => reason,
            },
        };
        let (granted, receiver) = oneshot::channel();
        state.waiting += 1;
        let waiting = &mut state.owners.entry(holder.owner).or_default().waiting;
        waiting.push_back(Waiting { holder, units, granted });
        if waiting.len() == 1 {
            state.turns.push_back(holder.owner);
        }
        Acquisition::Waiting(Waiter { pool: Arc::clone(self), holder, reason, receiver })
    }

    /// Takes units, and waits for them for a limited time.
    ///
    /// # Errors
    /// Returns why the request had to wait if the time is over.
    pub async fn acquire(
        self: &Arc<Self>,
        holder: Holder,
        units: usize,
        wait_max: Duration,
    ) -> Result<Slot, Exhausted> {
        match self.acquire_or_queue(holder, units) {
            Acquisition::Granted(slot) => Ok(slot),
            Acquisition::Waiting(mut waiter) => match timeout(wait_max, waiter.granted()).await {
                Ok(slot) => Ok(slot),
                Err(_elapsed) => {
                    self.state().count_refusal(Err(waiter.reason));
                    Err(waiter.reason)
                }
            },
        }
    }

    /// Returns whether a caller could take this number of units if all were free.
    pub fn can_ever_grant(&self, holder: Holder, units: usize) -> bool {
        State { free: self.limits.capacity, ..State::default() }.check(&self.limits, holder, units).is_ok()
    }

    /// Returns the use of the pool.
    pub fn status(&self) -> ShareStatus {
        let state = self.state();
        ShareStatus {
            capacity: self.limits.capacity,
            in_use: self.limits.capacity - state.free,
            waiting: state.waiting,
            ..state.refused
        }
    }

    fn slot(self: &Arc<Self>, holder: Holder, units: usize) -> Slot {
        Slot { pool: Arc::clone(self), holder, units }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The sums are consistent after every statement, so a panic elsewhere does not corrupt them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases units, if any, and serves waiters.
    fn release(self: &Arc<Self>, holder: Holder, units: usize) {
        let mut state = self.state();
        state.give_back(holder, units);
        let mut undelivered = Vec::new();
        for Waiting { holder, units, granted } in state.serve_waiters(&self.limits) {
            // The waiter may have been dropped. Its slot is then released after the lock is free again.
            undelivered.extend(granted.send(self.slot(holder, units)).err());
        }
        drop(state);
        drop(undelivered);
    }
}
