//! Who holds the units of a pool and who waits for them: the rule of shares, and the turns of waiters.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use tokio::sync::oneshot;

use super::{Exhausted, ShareLimits, ShareStatus, Slot};
use crate::admission::holder::{CallerKey, Holder, Owner};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) free: usize,
    pub(super) waiting: usize,
    /// Only owners that hold units or wait for them.
    pub(super) owners: HashMap<Owner, Holdings>,
    /// The owners with waiters, in the order of their turns.
    pub(super) turns: VecDeque<Owner>,
    pub(super) refused: ShareStatus,
}

#[derive(Debug, Default)]
pub(super) struct Holdings {
    units: usize,
    callers: HashMap<CallerKey, usize>,
    pub(super) waiting: VecDeque<Waiting>,
}

impl Holdings {
    fn units_of(&self, caller: Option<CallerKey>) -> usize {
        caller.and_then(|caller| self.callers.get(&caller)).copied().unwrap_or_default()
    }
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) holder: Holder,
    pub(super) units: usize,
    pub(super) granted: oneshot::Sender<Slot>,
}

impl State {
    /// Checks whether the shares allow these units.
    pub(super) fn check(&self, limits: &ShareLimits, holder: Holder, units: usize) -> Result<(), Exhausted> {
        let reserved = if holder.may_use_reserve() { 0 } else { self.unused_reserve(limits) };
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

    /// Returns the units that must stay free for operators and the service itself.
    fn unused_reserve(&self, limits: &ShareLimits) -> usize {
        let used = match limits.is_reserve_used_first {
            true => self.owners.get(&Owner::Platform).map_or(0, |holdings| holdings.units),
            false => 0,
        };
        limits.reserved.saturating_sub(used)
    }

    pub(super) fn try_take(
        &mut self,
        limits: &ShareLimits,
        holder: Holder,
        units: usize,
    ) -> Result<(), Exhausted> {
        self.check(limits, holder, units)?;
        self.take(holder, units);
        Ok(())
    }

    /// Takes units without a check.
    pub(super) fn take(&mut self, holder: Holder, units: usize) {
        self.free -= units;
        let holdings = self.owners.entry(holder.owner).or_default();
        holdings.units += units;
        if let Some(caller) = holder.caller {
            *holdings.callers.entry(caller).or_default() += units;
        }
    }

    pub(super) fn give_back(&mut self, holder: Holder, units: usize) {
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
    pub(super) fn has_waiters(&self, holder: Holder) -> bool {
        let waiting = self.owners.get(&holder.owner).map(|holdings| &holdings.waiting);
        waiting.is_some_and(|waiting| waiting.iter().any(|waiting| waiting.holder == holder))
    }

    /// Removes the requests that are not waited for any more.
    pub(super) fn remove_abandoned(&mut self, owner: Owner) {
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
    pub(super) fn serve_waiters(&mut self, limits: &ShareLimits) -> Vec<Waiting> {
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

    pub(super) fn count_refusal(&mut self, taken: Result<(), Exhausted>) {
        match taken {
            Ok(()) => {}
            Err(Exhausted::Caller) => self.refused.refused_caller += 1,
            Err(Exhausted::Tenant | Exhausted::TenantMax) => self.refused.refused_tenant += 1,
            Err(Exhausted::Process) => self.refused.refused_process += 1,
        }
    }
}
