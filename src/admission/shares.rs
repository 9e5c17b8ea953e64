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

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::holder::{CallerKey, Holder, Owner};

/// The units that a holder may have, as a multiple of those that it leaves free.
pub const SHARE_OF_FREE: usize = 3;

/// The limits of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareLimits {
    /// The number of units.
    pub capacity: usize,
    /// The units that only operators and the service itself may use.
    pub reserved: usize,
    /// The units by which a share is rounded up, so that a pool of a few units can be used at all.
    pub rounding: usize,
    /// The most units that a tenant may hold, whatever is free.
    pub tenant_max: usize,
    /// The units that stay free when the others are lent; `None` if shares are never exceeded.
    pub lent_above: Option<usize>,
    /// The most units of the share of a tenant, which its callers share.
    pub share_max: usize,
}

impl ShareLimits {
    /// Limits of a pool whose holders take one unit at a time.
    pub const fn slots(capacity: usize) -> Self {
        Self {
            capacity,
            reserved: 0,
            rounding: 1,
            tenant_max: usize::MAX,
            share_max: usize::MAX,
            lent_above: None,
        }
    }

    /// Limits of a pool whose holders take many units at a time.
    pub const fn weighted(capacity: usize) -> Self {
        Self { rounding: 0, ..Self::slots(capacity) }
    }

    /// Reserves units for operators, at most half of the pool.
    #[must_use]
    pub fn with_reserve(self, units: usize) -> Self {
        Self { reserved: units.min(self.capacity / 2), ..self }
    }

    /// Gives a tenant a share of at most half of what is not reserved, however much is free. For what can be
    /// held for long: a few tenants that take one share after the other would otherwise leave next to nothing.
    #[must_use]
    pub const fn with_tenant_half(self) -> Self {
        Self { share_max: (self.capacity - self.reserved).div_ceil(2), ..self }
    }

    /// Lends idle units: as long as nobody within its share waits, a holder may exceed its own share and leave
    /// only `spare` units to other tenants, and as many to the other callers of its tenant. For units that are
    /// held for a short time, because lent units are not taken back.
    #[must_use]
    pub fn with_lending(self, spare: usize) -> Self {
        Self { lent_above: Some(spare), ..self }
    }

    /// Returns the most units that a holder may have of those that others leave: the largest number that is not
    /// more than [`SHARE_OF_FREE`] times the rest, or all but the spare ones.
    fn share_of(&self, units: usize) -> usize {
        let rounded = units.saturating_add(self.rounding);
        let share = rounded.saturating_mul(SHARE_OF_FREE) / (SHARE_OF_FREE + 1);
        let lent = self.lent_above.map_or(0, |spare| units.saturating_sub(spare));
        share.max(lent).min(units)
    }
}

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

/// A pool of units that is shared fairly.
#[derive(Debug)]
pub struct Shares {
    limits: ShareLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: usize,
    waiting: usize,
    /// Only owners that hold units or wait for them.
    owners: HashMap<Owner, Holdings>,
    /// The owners with waiters, in the order of their turns.
    turns: VecDeque<Owner>,
    refused: ShareStatus,
}

#[derive(Debug, Default)]
struct Holdings {
    units: usize,
    callers: HashMap<CallerKey, usize>,
    waiting: VecDeque<Waiting>,
}

impl Holdings {
    fn units_of(&self, caller: Option<CallerKey>) -> usize {
        caller.and_then(|caller| self.callers.get(&caller)).copied().unwrap_or_default()
    }
}

#[derive(Debug)]
struct Waiting {
    holder: Holder,
    units: usize,
    granted: oneshot::Sender<Slot>,
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

impl State {
    /// Checks whether the shares allow these units.
    fn check(&self, limits: &ShareLimits, holder: Holder, units: usize) -> Result<(), Exhausted> {
        let reserved = if holder.may_use_reserve() { 0 } else { limits.reserved };
        let available = self.free.saturating_sub(reserved);
        if units > available {
            return Err(Exhausted::Process);
        }
        if holder.owner == Owner::Platform {
            return Ok(());
        }
        let holdings = self.owners.get(&holder.owner);
        let held = holdings.map_or(0, |holdings| holdings.units);
        let share = limits.share_of(available + held).min(limits.share_max);
        if held + units > share.min(limits.tenant_max) {
            return Err(if share >= limits.tenant_max { Exhausted::TenantMax } else { Exhausted::Tenant });
        }
        if holder.caller.is_none() {
            return Ok(());
        }
        let held_by_caller = holdings.map_or(0, |holdings| holdings.units_of(holder.caller));
        // Of the share and not of the maximum, which one caller may reach.
        let left_by_others = share - (held - held_by_caller);
        if held_by_caller + units > limits.share_of(left_by_others) {
            return Err(Exhausted::Caller);
        }
        Ok(())
    }

    fn try_take(&mut self, limits: &ShareLimits, holder: Holder, units: usize) -> Result<(), Exhausted> {
        self.check(limits, holder, units)?;
        self.take(holder, units);
        Ok(())
    }

    /// Takes units without a check.
    fn take(&mut self, holder: Holder, units: usize) {
        self.free -= units;
        let holdings = self.owners.entry(holder.owner).or_default();
        holdings.units += units;
        if let Some(caller) = holder.caller {
            *holdings.callers.entry(caller).or_default() += units;
        }
    }

    fn give_back(&mut self, holder: Holder, units: usize) {
        self.free += units;
        let Some(holdings) = self.owners.get_mut(&holder.owner) else { return };
        holdings.units -= units;
        if let Some(caller) = holder.caller
            && let Entry::Occupied(mut held) = holdings.callers.entry(caller)
        {
            *held.get_mut() -= units;
            if *held.get() == 0 {
                held.remove();
            }
        }
        self.remove_if_unused(holder.owner);
    }

    fn remove_if_unused(&mut self, owner: Owner) {
        if self.owners.get(&owner).is_some_and(|held| held.units == 0 && held.waiting.is_empty()) {
            self.owners.remove(&owner);
        }
    }

    /// Whether a request of this caller waits. A later request must not overtake it.
    fn has_waiters(&self, holder: Holder) -> bool {
        let waiting = self.owners.get(&holder.owner).map(|holdings| &holdings.waiting);
        waiting.is_some_and(|waiting| waiting.iter().any(|waiting| waiting.holder == holder))
    }

    /// Removes the requests that are not waited for any more.
    fn remove_abandoned(&mut self, owner: Owner) {
        let Some(holdings) = self.owners.get_mut(&owner) else { return };
        let before = holdings.waiting.len();
        holdings.waiting.retain(|waiting| !waiting.granted.is_closed());
        self.waiting -= before - holdings.waiting.len();
        if before > 0 && holdings.waiting.is_empty() {
            self.turns.retain(|turn| *turn != owner);
        }
        self.remove_if_unused(owner);
    }

    /// Takes units for waiters whose requests fit now: for those within their shares before any are lent.
    fn serve_waiters(&mut self, limits: &ShareLimits) -> Vec<Waiting> {
        let mut served = self.serve_in_turn(&ShareLimits { lent_above: None, ..*limits });
        if limits.lent_above.is_some() {
            served.extend(self.serve_in_turn(limits));
        }
        served
    }

    /// Takes units for waiters whose requests fit these limits, one owner after the other.
    fn serve_in_turn(&mut self, limits: &ShareLimits) -> Vec<Waiting> {
        let (mut served, mut passed) = (Vec::new(), 0);
        while passed < self.turns.len() {
            let Some(owner) = self.turns.pop_front() else { break };
            match self.pop_servable(limits, owner) {
                Some(waiting) => {
                    served.push(waiting);
                    passed = 0;
                }
                None => passed += 1,
            }
            match self.owners.get(&owner).is_some_and(|holdings| !holdings.waiting.is_empty()) {
                true => self.turns.push_back(owner),
                // Every owner that is left has been passed one turn fewer.
                false => passed = passed.saturating_sub(1),
            }
        }
        served
    }

    /// Takes units for the next request of an owner that fits: the oldest one of the caller that holds the least.
    fn pop_servable(&mut self, limits: &ShareLimits, owner: Owner) -> Option<Waiting> {
        let mut full_callers: Vec<Option<CallerKey>> = Vec::new();
        loop {
            let holdings = self.owners.get(&owner)?;
            let waiting = holdings.waiting.iter().enumerate();
            let (index, next) = waiting
                .filter(|(_, waiting)| !full_callers.contains(&waiting.holder.caller))
                .min_by_key(|(_, waiting)| holdings.units_of(waiting.holder.caller))?;
            let (holder, units) = (next.holder, next.units);
            match self.try_take(limits, holder, units) {
                Ok(()) => {
                    self.waiting -= 1;
                    return self.owners.get_mut(&owner)?.waiting.remove(index);
                }
                Err(Exhausted::Caller) => full_callers.push(holder.caller),
                // Later requests must not take the units that this one waits for.
                Err(Exhausted::Tenant | Exhausted::TenantMax | Exhausted::Process) => return None,
            }
        }
    }

    fn count_refusal(&mut self, taken: Result<(), Exhausted>) {
        match taken {
            Ok(()) => {}
            Err(Exhausted::Caller) => self.refused.refused_caller += 1,
            Err(Exhausted::Tenant | Exhausted::TenantMax) => self.refused.refused_tenant += 1,
            Err(Exhausted::Process) => self.refused.refused_process += 1,
        }
    }
}

/// A queued request for units. Dropping it lets later waiters proceed.
#[derive(Debug)]
pub struct Waiter {
    pool: Arc<Shares>,
    holder: Holder,
    reason: Exhausted,
    receiver: oneshot::Receiver<Slot>,
}

impl Waiter {
    /// Waits for the units.
    pub async fn granted(&mut self) -> Slot {
        match (&mut self.receiver).await {
            Ok(slot) => slot,
            // The sender is dropped only with this waiter, or after it has sent.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.receiver.close();
        self.pool.state().remove_abandoned(self.holder.owner);
        self.pool.release(self.holder, 0);
    }
}

/// Units of a pool. Dropping it releases them.
#[derive(Debug)]
pub struct Slot {
    pool: Arc<Shares>,
    holder: Holder,
    units: usize,
}

impl Slot {
    /// Adds the units of another slot of the same holder.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(self.holder == other.holder && Arc::ptr_eq(&self.pool, &other.pool));
        self.units += std::mem::take(&mut other.units);
    }

    /// Makes another holder hold the units.
    ///
    /// # Errors
    /// Returns `Exhausted` if the share of the new holder does not allow it. The units then stay with the
    /// previous holder.
    pub fn reassign(&mut self, holder: Holder) -> Result<(), Exhausted> {
        let mut state = self.pool.state();
        state.give_back(self.holder, self.units);
        let taken = state.try_take(&self.pool.limits, holder, self.units);
        state.count_refusal(taken);
        match taken {
            Ok(()) => self.holder = holder,
            Err(_) => state.take(self.holder, self.units),
        }
        drop(state);
        // The previous holder may have waiters.
        self.pool.release(self.holder, 0);
        taken
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.units > 0 {
            self.pool.release(self.holder, self.units);
        }
    }
}

#[cfg(test)]
#[path = "shares_tests.rs"]
mod tests;
