//! Limits the connections of a port: in total, per address, and per tenant.
//!
//! A peer is *known* after it has sent what the port requires: a request of a verified caller on the gRPC
//! port, a complete request on the edge port. A port that is full closes the oldest connection of an unknown
//! peer, or else the one that has been idle for longest. If all have requests of known peers, it closes the
//! oldest connection of the address that has the most, if that has more than the new one's. For an address that
//! is at its limit, the first two rules apply to its own connections. Trusted proxies, which connect for many
//! clients, have no limit per address, and are known from the start.
//!
//! On the gRPC port, the caller of the first verified request holds the connection, as a unit of the share of its
//! tenant and of its own share ([`shares`](super::shares)). A part of the connections is reserved for operators, so
//! tenants never use all, however many addresses they have. Beyond a share, the connection of the same tenant or
//! caller that has been idle for longest is closed. If none is idle, the new connection gets no holder: its requests
//! are refused, and it counts as one of an unknown peer. If the connections that are not reserved are used up, one of
//! another tenant is closed: the one that has been idle for longest, or the oldest of the tenant with the most, if
//! that has more than the new one's. Connections of trusted proxies carry many tenants, so they count as the
//! service's own.

mod claims;

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use self::claims::Claim;
use super::{
    holder::{Holder, normalize_address},
    shares::{Exhausted, ShareLimits, ShareStatus, Shares},
};
use crate::domain::address_range::AddressRange;

/// The limits of the connections of a port.
#[derive(Debug, Clone)]
pub struct PeerLimits {
    pub connections_max: usize,
    pub per_address_max: usize,
    /// The addresses without a limit of their own. Their connections count as known from the start.
    pub trusted: Vec<AddressRange>,
    /// The shares of tenants and callers; `None` if connections have no holders.
    pub shares: Option<ShareLimits>,
}

/// The connections of a port.
#[derive(Debug)]
pub struct Peers {
    limits: PeerLimits,
    /// One unit for each connection with a holder.
    held: Option<Arc<Shares>>,
    state: Mutex<State>,
    /// Notified when a connection or a request ends.
    ended: Arc<Notify>,
    /// The number of peers that became known.
    known_count: Arc<AtomicU64>,
}

/// The number of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeersStatus {
    /// The open connections.
    pub open: usize,
    /// The number of connections that were closed to make room.
    pub closed_for_room: u64,
    /// The number of connections that were rejected because of the limit per address.
    pub refused: u64,
    /// The number of connections that were closed, or got no holder, because of the share of a tenant or caller.
    pub beyond_share: u64,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    open: HashMap<u64, Arc<Connection>>,
    /// The number of open connections of each address that has some.
    of_address: HashMap<IpAddr, usize>,
    counts: PeersStatus,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    peers: Weak<Peers>,
    address: IpAddr,
    is_trusted: bool,
    standing: Mutex<Standing>,
    claim: Mutex<Option<Claim>>,
    close: CancellationToken,
    ended: Arc<Notify>,
    known_count: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    is_known: bool,
    /// Whether it got no holder when it asked for one.
    is_refused: bool,
    requests: usize,
    /// When the connection was accepted, or its last request ended.
    since: Instant,
}

/// A connection of a port. Dropping it makes room for another one.
#[derive(Debug)]
pub struct PeerConnection {
    peers: Arc<Peers>,
    peer: Peer,
}

/// The peer of a connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Connection>);

/// A request on a connection, until it is dropped.
#[derive(Debug)]
pub struct PeerRequest(Peer);

enum Admitted {
    Yes(PeerConnection),
    /// The address has as many connections as it may have, and all are in use.
    AddressFull,
    /// All connections are in use.
    PortFull,
}

impl Peers {
    pub fn new(limits: PeerLimits) -> Arc<Self> {
        let held = limits.shares.map(Shares::new);
        let (state, ended, known_count) = (Mutex::default(), Arc::default(), Arc::default());
        Arc::new(Self { limits, held, state, ended, known_count })
    }

    /// Admits a connection, and closes another one if there is no room. Waits if all are in use. Returns
    /// `None` if the address may have no more connections. The connection must end when its
    /// [`PeerConnection::close`] is cancelled, which also happens when `close_all` is.
    pub async fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        close_all: &CancellationToken,
    ) -> Option<PeerConnection> {
        loop {
            match self.try_admit(address, close_all) {
                Admitted::Yes(connection) => return Some(connection),
                Admitted::AddressFull => return None,
                Admitted::PortFull => self.ended.notified().await,
            }
        }
    }

    /// Returns the number of connections.
    pub fn status(&self) -> PeersStatus {
        let state = self.state();
        PeersStatus { open: state.open.len(), ..state.counts }
    }

    /// Returns how tenants and callers share the connections.
    pub fn share_status(&self) -> ShareStatus {
        self.held.as_ref().map(|held| held.status()).unwrap_or_default()
    }

    fn try_admit(self: &Arc<Self>, address: IpAddr, close_all: &CancellationToken) -> Admitted {
        let is_trusted = self.limits.trusted.iter().any(|range| range.contains(address));
        let address = normalize_address(address);
        let mut state = self.state();
        let of_address = state.count_of(address);
        if !is_trusted
            && of_address >= self.limits.per_address_max
            && !state.make_room(|connection| connection.address == address)
        {
            state.counts.refused += 1;
            return Admitted::AddressFull;
        }
        if state.open.len() >= self.limits.connections_max
            && !state.make_room(|_| true)
            && !state.take_from_largest(if is_trusted { 0 } else { of_address })
        {
            if of_address == 0 || is_trusted {
                return Admitted::PortFull;
            }
            // It must not block later newcomers.
            state.counts.refused += 1;
            return Admitted::AddressFull;
        }
        let standing =
            Standing { is_known: is_trusted, is_refused: false, requests: 0, since: Instant::now() };
        let close = close_all.child_token();
        let claim = match (&self.held, is_trusted) {
            (Some(held), true) => Some(Claim::of_platform(held)),
            _ => None,
        };
        let id = state.next_id;
        let connection = Arc::new(Connection {
            id,
            peers: Arc::downgrade(self),
            address,
            is_trusted,
            standing: Mutex::new(standing),
            claim: Mutex::new(claim),
            close,
            ended: Arc::clone(&self.ended),
            known_count: Arc::clone(&self.known_count),
        });
        state.next_id += 1;
        state.insert(Arc::clone(&connection));
        Admitted::Yes(PeerConnection { peers: Arc::clone(self), peer: Peer(connection) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The map is consistent after every statement, so a poisoned lock is safe to use.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Closes the first connection in the order of the module, of those that `may_close` accepts. Returns
    /// whether there is one.
    fn make_room(&mut self, may_close: impl Fn(&Connection) -> bool) -> bool {
        let candidates = self.open.iter().filter(|(_, connection)| may_close(connection));
        let closable = candidates.filter_map(|(id, connection)| {
            let Standing { is_known, requests, since, .. } = *connection.standing();
            (!is_known || requests == 0).then_some((is_known, since, *id))
        });
        let Some((_, _, id)) = closable.min() else { return false };
        self.close(id);
        true
    }

    /// Closes the oldest connection of the address that has the most, if they are more than a newcomer's address
    /// would have. Returns whether there is one. Trusted proxies speak for many, so theirs are not closed.
    fn take_from_largest(&mut self, count_of_newcomer: usize) -> bool {
        let mut by_address: HashMap<IpAddr, (usize, u64)> = HashMap::new();
        for (id, connection) in self.open.iter().filter(|(_, connection)| !connection.is_trusted) {
            let (count, oldest) = by_address.entry(connection.address).or_insert((0, *id));
            (*count, *oldest) = (*count + 1, (*oldest).min(*id));
        }
        let largest = by_address.into_values().max_by_key(|(count, oldest)| (*count, Reverse(*oldest)));
        let Some((_, id)) = largest.filter(|(count, _)| *count > count_of_newcomer + 1) else { return false };
        self.close(id);
        true
    }

    fn close(&mut self, id: u64) {
        if let Some(connection) = self.remove(id) {
            connection.end();
        }
        self.counts.closed_for_room += 1;
    }

    fn count_of(&self, address: IpAddr) -> usize {
        self.of_address.get(&address).copied().unwrap_or_default()
    }

    fn insert(&mut self, connection: Arc<Connection>) {
        *self.of_address.entry(connection.address).or_default() += 1;
        self.open.insert(connection.id, connection);
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Connection>> {
        let connection = self.open.remove(&id)?;
        if let Entry::Occupied(mut count) = self.of_address.entry(connection.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(connection)
    }
}

impl Connection {
    fn claim(&self) -> MutexGuard<'_, Option<Claim>> {
        // Each statement leaves a valid value, so a poisoned lock is safe to use.
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holder(&self) -> Option<Holder> {
        self.claim().as_ref().map(|claim| claim.holder)
    }

    /// Closes the connection, and releases its unit.
    fn end(&self) {
        self.close.cancel();
        drop(self.claim().take());
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Each statement leaves a valid value, so a poisoned lock is safe to use.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerConnection {
    /// Returns the token that is cancelled when the connection must end.
    pub fn close(&self) -> &CancellationToken {
        &self.peer.0.close
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        self.peers.state().remove(self.peer.0.id);
        drop(self.peer.0.claim().take());
        self.peers.ended.notify_one();
    }
}

impl Peer {
    /// Closes the connection.
    pub fn close(&self) {
        self.0.close.cancel();
    }

    /// Marks the peer as known, and makes the holder of its verified request the holder of the connection, if that has
    /// none.
    ///
    /// # Errors
    /// Returns why the connection got no holder. The peer is then as unknown as before.
    pub fn claim(&self, holder: Holder) -> Result<(), Exhausted> {
        let Self(connection) = self;
        if !connection.keep_claim(holder)
            && let Some(peers) = connection.peers.upgrade()
        {
            peers.claim(connection, holder)?;
        }
        self.mark_known();
        Ok(())
    }

    /// Marks the peer as known.
    pub fn mark_known(&self) {
        if !std::mem::replace(&mut self.0.standing().is_known, true) {
            self.0.known_count.fetch_add(1, Ordering::Release);
        }
    }

    /// Returns the number of peers of the port that became known. While it does not change, no peer becomes known.
    pub fn known_count(&self) -> u64 {
        self.0.known_count.load(Ordering::Acquire)
    }

    /// Returns whether the peer is known.
    pub fn is_known(&self) -> bool {
        self.0.standing().is_known
    }

    /// Returns the address that counts for limits.
    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    /// Notes that a request is in progress until the returned value is dropped.
    pub fn start_request(&self) -> PeerRequest {
        self.0.standing().requests += 1;
        PeerRequest(self.clone())
    }
}

impl Drop for PeerRequest {
    fn drop(&mut self) {
        let Peer(connection) = &self.0;
        let mut standing = connection.standing();
        standing.requests -= 1;
        standing.since = Instant::now();
        drop(standing);
        connection.ended.notify_one();
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
