//! Limits the connections of a port: in total, and per address.
//!
//! A peer is *known* after it has sent what the port requires: a request of a verified caller on the gRPC
//! port, a complete request on the edge port. A port that is full closes the oldest connection of an unknown
//! peer, or else the one that has been idle for longest. If all have requests of known peers, it closes the
//! oldest connection of the address that has the most, if that has more than the new one's. For an address that
//! is at its limit, the first two rules apply to its own connections. Trusted proxies, which connect for many
//! clients, have no limit per address, and are known from the start.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::holder::normalize_address;
use crate::domain::address_range::AddressRange;

/// The limits of the connections of a port.
#[derive(Debug, Clone)]
pub struct PeerLimits {
    pub connections_max: usize,
    pub per_address_max: usize,
    /// The addresses without a limit of their own. Their connections count as known from the start.
    pub trusted: Vec<AddressRange>,
}

/// The connections of a port.
#[derive(Debug)]
pub struct Peers {
    limits: PeerLimits,
    state: Mutex<State>,
    /// Notified when a connection or a request ends.
    ended: Arc<Notify>,
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
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    open: HashMap<u64, Arc<Connection>>,
    counts: PeersStatus,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    is_trusted: bool,
    standing: Mutex<Standing>,
    close: CancellationToken,
    ended: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    is_known: bool,
    requests: usize,
    /// When the connection was accepted, or its last request ended.
    since: Instant,
}

/// A connection of a port. Dropping it makes room for another one.
#[derive(Debug)]
pub struct PeerConnection {
    peers: Arc<Peers>,
    id: u64,
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
        Arc::new(Self { limits, state: Mutex::default(), ended: Arc::default() })
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

    fn try_admit(self: &Arc<Self>, address: IpAddr, close_all: &CancellationToken) -> Admitted {
        let is_trusted = self.limits.trusted.iter().any(|range| range.contains(address));
        let address = normalize_address(address);
        let mut state = self.state();
        let of_address = state.open.values().filter(|connection| connection.address == address).count();
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
        let standing = Standing { is_known: is_trusted, requests: 0, since: Instant::now() };
        let close = close_all.child_token();
        let (standing, ended) = (Mutex::new(standing), Arc::clone(&self.ended));
        let connection = Arc::new(Connection { address, is_trusted, standing, close, ended });
        let id = state.next_id;
        state.next_id += 1;
        state.open.insert(id, Arc::clone(&connection));
        Admitted::Yes(PeerConnection { peers: Arc::clone(self), id, peer: Peer(connection) })
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
            let Standing { is_known, requests, since } = *connection.standing();
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
        if let Some(connection) = self.open.remove(&id) {
            connection.close.cancel();
        }
        self.counts.closed_for_room += 1;
    }
}

impl Connection {
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
        self.peers.state().open.remove(&self.id);
        self.peers.ended.notify_one();
    }
}

impl Peer {
    /// Closes the connection.
    pub fn close(&self) {
        self.0.close.cancel();
    }

    /// Marks the peer as known.
    pub fn mark_known(&self) {
        self.0.standing().is_known = true;
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
mod tests {
    use futures::FutureExt;

    use super::*;

    fn peers(connections_max: usize, per_address_max: usize) -> Arc<Peers> {
        let trusted = vec!["192.0.2.0/24".parse().unwrap()];
        Peers::new(PeerLimits { connections_max, per_address_max, trusted })
    }

    fn admit(peers: &Arc<Peers>, address: &str) -> Option<PeerConnection> {
        let admitted = peers.admit(address.parse().unwrap(), &CancellationToken::new()).now_or_never();
        admitted.expect("a connection waits for room")
    }

    #[tokio::test(start_paused = true)]
    async fn full_port_closes_the_oldest_unknown_peer() {
        let peers = peers(3, 3);
        let known = admit(&peers, "10.0.0.1").unwrap();
        known.peer().mark_known();
        let mut strangers = Vec::new();
        for address in ["10.0.0.2", "10.0.0.3"] {
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
            strangers.push(admit(&peers, address).unwrap());
        }
        // A request of an unknown peer does not protect it.
        let _request = strangers[0].peer().start_request();
        let _new = admit(&peers, "10.0.0.4").unwrap();
        assert!(strangers[0].close().is_cancelled());
        assert!(!strangers[1].close().is_cancelled() && !known.close().is_cancelled());
        assert_eq!(peers.status(), PeersStatus { open: 3, closed_for_room: 1, refused: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn full_port_closes_the_longest_idle_peer_or_waits() {
        let peers = peers(2, 2);
        let connections = ["10.0.0.1", "10.0.0.2"].map(|address| admit(&peers, address).unwrap());
        let busy = connections.each_ref().map(|connection| {
            connection.peer().mark_known();
            connection.peer().start_request()
        });
        let close = CancellationToken::new();
        let mut waits = Box::pin(peers.admit("10.0.0.3".parse().unwrap(), &close));
        assert!(waits.as_mut().now_or_never().is_none(), "both have requests");
        let [first, second] = busy;
        drop(second);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        drop(first);
        let admitted = admit(&peers, "10.0.0.4");
        assert!(admitted.is_some() && connections[1].close().is_cancelled(), "it was idle for longer");
        drop(connections);
        assert!(waits.await.is_some());
    }

    #[test]
    fn port_full_of_busy_peers_takes_from_the_largest_address() {
        let peers = peers(4, 4);
        let admit_busy = |address| {
            let connection = admit(&peers, address)?;
            connection.peer().mark_known();
            let request = connection.peer().start_request();
            Some((connection, request))
        };
        let proxied = admit_busy("192.0.2.7").unwrap();
        let crowd = [(); 3].map(|()| admit_busy("10.0.0.1").unwrap());
        assert!(admit_busy("10.0.0.1").is_none(), "refused, so later ones do not wait");
        let _operator = admit_busy("10.0.0.2").unwrap();
        assert!(crowd[0].0.close().is_cancelled() && !crowd[1].0.close().is_cancelled());
        assert!(!proxied.0.close().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn address_at_its_limit_displaces_only_itself() {
        let peers = peers(10, 2);
        let other = admit(&peers, "10.0.0.9").unwrap();
        let first = admit(&peers, "10.0.0.1").unwrap();
        let second = admit(&peers, "10.0.0.1").unwrap();
        let third = admit(&peers, "10.0.0.1").unwrap();
        assert!(first.close().is_cancelled() && !other.close().is_cancelled());
        let requests = [&second, &third].map(|connection| {
            connection.peer().mark_known();
            connection.peer().start_request()
        });
        assert!(admit(&peers, "10.0.0.1").is_none(), "all of its connections are in use");
        assert_eq!(peers.status().refused, 1);
        drop(requests);
        let proxied: Vec<_> = (0..5).map(|_| admit(&peers, "192.0.2.7").unwrap()).collect();
        assert!(proxied.iter().all(|connection| !connection.close().is_cancelled()));
    }
}
