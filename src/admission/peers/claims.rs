//! The holders of connections: a connection is a unit of the shares of a tenant and its caller.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use super::{Connection, Peers, Standing, State};
use crate::admission::{
    holder::{Holder, Owner},
    shares::{Exhausted, Shares, Slot},
};

/// The holder of a connection.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) holder: Holder,
    /// `None` if all units are used, which does not stop an operator or a proxy.
    slot: Option<Slot>,
}

impl Claim {
    /// Holds the connection of an operator or a proxy.
    pub(super) fn of_platform(held: &Arc<Shares>) -> Self {
        Self { holder: Holder::PLATFORM, slot: held.try_acquire(Holder::PLATFORM, 1).ok() }
    }
}

impl Peers {
    /// Gives the connection a holder.
    pub(super) fn claim(&self, connection: &Connection, holder: Holder) -> Result<(), Exhausted> {
        let Some(held) = &self.held else { return Ok(()) };
        // Locked until the end, so that concurrent claims close no more connections than they need.
        let mut state = self.state();
        if connection.close.is_cancelled() || connection.claim().is_some() {
            return Ok(());
        }
        if holder == Holder::PLATFORM {
            *connection.claim() = Some(Claim::of_platform(held));
            return Ok(());
        }
        let mut taken = held.try_acquire(holder, 1);
        if let Err(reason) = taken
            && state.close_beyond_share(holder, reason)
        {
            taken = held.try_acquire(holder, 1);
        }
        match taken {
            Ok(slot) => {
                *connection.claim() = Some(Claim { holder, slot: Some(slot) });
                Ok(())
            }
            Err(reason) => {
                if connection.note_refusal() {
                    state.counts.beyond_share += 1;
                    tracing::info!(address = %connection.address, ?reason, "refused connection beyond a share");
                }
                Err(reason)
            }
        }
    }
}

impl State {
    /// Closes a connection because another one of this holder needs its unit. Returns whether there is one.
    fn close_beyond_share(&mut self, holder: Holder, reason: Exhausted) -> bool {
        let victim = match reason {
            Exhausted::Caller => self.find_longest_idle(|other| other == holder),
            Exhausted::Tenant | Exhausted::TenantMax => {
                self.find_longest_idle(|other| other.owner == holder.owner)
            }
            Exhausted::Process => self
                .find_longest_idle(|other| other != Holder::PLATFORM)
                .or_else(|| self.find_oldest_of_largest_tenant(holder.owner)),
        };
        let Some(connection) = victim.and_then(|id| self.remove(id)) else { return false };
        tracing::info!(address = %connection.address, ?reason, "closed connection for the share of another one");
        connection.end();
        self.counts.beyond_share += 1;
        true
    }

    /// Returns the connection without requests that has been idle for longest, of the holders that `may_close`
    /// accepts.
    fn find_longest_idle(&self, may_close: impl Fn(Holder) -> bool) -> Option<u64> {
        let idle = self.open.iter().filter_map(|(id, connection)| {
            let Standing { requests, since, .. } = *connection.standing();
            let is_closable = requests == 0 && connection.holder().is_some_and(&may_close);
            is_closable.then_some((since, *id))
        });
        idle.min().map(|(_, id)| id)
    }

    /// Returns the oldest connection of the tenant that has the most, if that has more than this one would have.
    fn find_oldest_of_largest_tenant(&self, newcomer: Owner) -> Option<u64> {
        let mut by_owner: HashMap<Owner, (usize, u64)> = HashMap::new();
        for (id, connection) in &self.open {
            let Some(holder) = connection.holder().filter(|holder| *holder != Holder::PLATFORM) else {
                continue;
            };
            let (count, oldest) = by_owner.entry(holder.owner).or_insert((0, *id));
            (*count, *oldest) = (*count + 1, (*oldest).min(*id));
        }
        let own = by_owner.get(&newcomer).map_or(0, |(count, _)| *count);
        let largest = by_owner.into_values().max_by_key(|(count, oldest)| (*count, Reverse(*oldest)));
        largest.filter(|(count, _)| *count > own + 1).map(|(_, id)| id)
    }
}

impl Connection {
    /// Returns whether the connection has a holder. One that was known by the name of its tenant only becomes the
    /// given one, if it is of the tenant.
    pub(super) fn keep_claim(&self, holder: Holder) -> bool {
        let mut claim = self.claim();
        let Some(Claim { holder: current, slot }) = &mut *claim else { return false };
        if let (Owner::Name(_), Owner::Tenant(_)) = (current.owner, holder.owner)
            && slot.as_mut().is_some_and(|slot| slot.reassign(holder).is_ok())
        {
            *current = holder;
        }
        true
    }

    /// Notes that the connection got no holder. Returns whether this is the first time.
    fn note_refusal(&self) -> bool {
        let mut standing = self.standing();
        !std::mem::replace(&mut standing.is_refused, true)
    }
}
