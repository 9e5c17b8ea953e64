//! Limits the number of concurrent anonymous requests.
//!
//! Anyone can send them. A further request therefore ends another one: the oldest of the address that has the most,
//! so that the requests of one address end each other and not those of others. A health check takes microseconds
//! once its message has arrived, so a check that is ended early was one that did not send its message.
//!
//! Clients watch the health of the server on the connection of their calls, and stop their calls when the watch
//! ends. A request on a connection with a verified caller is therefore ended only for another one of that kind,
//! and only if its address has more of them. If there is no request to end, the further one is refused.
//!
//! Ending a request costs a few microseconds, however many there are: the requests are counted by address, and the
//! connections are asked whether they have a verified caller only after one of the port got one.

mod crowd;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use self::crowd::Crowd;
use crate::admission::peers::Peer;

/// The places of anonymous requests.
pub(super) struct Anonymous {
    places_max: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next_id: u64,
    /// The requests in progress by id, the oldest first.
    taken: BTreeMap<u64, Taken>,
    /// The requests on connections with a verified caller, as of the last look.
    known: Crowd,
    /// The other requests.
    unknown: Crowd,
    /// The number of connections of the port that had become known at the last look.
    known_count: u64,
}

struct Taken {
    address: IpAddr,
    peer: Option<Peer>,
    /// Whether the request is counted among those on connections with a verified caller.
    is_known: bool,
    /// Dropping it ends the request.
    _displaced: oneshot::Sender<()>,
}

/// The place of a request, until it is dropped.
pub(super) struct Place {
    anonymous: Arc<Anonymous>,
    id: u64,
    displaced: oneshot::Receiver<()>,
}

impl Anonymous {
    pub(super) fn new(places_max: usize) -> Arc<Self> {
        Arc::new(Self { places_max, places: Mutex::default() })
    }

    /// Takes a place, of another request if none is free. `peer` is the connection that protects the request, if
    /// its caller is verified at any time. Returns `None` if no other request may be ended.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, peer: Option<Peer>) -> Option<Place> {
        let mut places = self.places();
        let is_known = peer.as_ref().is_some_and(Peer::is_known);
        if places.taken.len() >= self.places_max && !places.make_room(address, is_known) {
            return None;
        }
        let (sender, displaced) = oneshot::channel();
        let id = places.next_id;
        places.next_id += 1;
        places.insert(id, Taken { address, peer, is_known, _displaced: sender });
        Some(Place { anonymous: Arc::clone(self), id, displaced })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // The places are consistent after every call, so a poisoned lock is safe to use.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn insert(&mut self, id: u64, taken: Taken) {
        let crowd = if taken.is_known { &mut self.known } else { &mut self.unknown };
        crowd.insert(taken.address, id);
        self.taken.insert(id, taken);
    }

    /// Removes a request, which ends it. Returns whether it was in progress.
    fn remove(&mut self, id: u64) -> bool {
        let Some(taken) = self.taken.remove(&id) else { return false };
        let crowd = if taken.is_known { &mut self.known } else { &mut self.unknown };
        crowd.remove(taken.address, id);
        true
    }

    /// Ends a request for one of this address. Returns whether there is one that may be ended.
    fn make_room(&mut self, address: IpAddr, is_known: bool) -> bool {
        self.note_known_connections();
        let victim = match (self.unknown.largest(address), is_known) {
            (Some(largest), _) => Some(largest),
            (None, true) => {
                let own = self.known.count_of(address);
                self.known.largest(address).filter(|largest| largest.count > own + 1)
            }
            (None, false) => None,
        };
        victim.is_some_and(|largest| self.remove(largest.oldest))
    }

    /// Looks which connections have a verified caller, if one of the port got one since the last look.
    fn note_known_connections(&mut self) {
        // All connections are of one port, and either all requests name theirs or none does.
        let oldest = self.taken.first_key_value();
        let Some(peer) = oldest.and_then(|(_, taken)| taken.peer.as_ref()) else { return };
        // Read before the connections are asked, so that one that becomes known later is noted later.
        let known_count = peer.known_count();
        if known_count == self.known_count {
            return;
        }
        self.known_count = known_count;
        for (id, taken) in &mut self.taken {
            if !taken.is_known && taken.peer.as_ref().is_some_and(Peer::is_known) {
                taken.is_known = true;
                self.unknown.remove(taken.address, *id);
                self.known.insert(taken.address, *id);
            }
        }
    }
}

impl Place {
    /// Waits until another request takes the place.
    pub(super) async fn displaced(&mut self) {
        std::future::poll_fn(|context| self.poll_displaced(context)).await;
    }

    fn poll_displaced(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.displaced).poll(context).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.anonymous.places().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admission::peers::{PeerConnection, PeerLimits, Peers};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn connect(from: &str) -> PeerConnection {
        let limits = PeerLimits { connections_max: 9, per_address_max: 9, trusted: Vec::new(), shares: None };
        let admitted = Peers::new(limits).admit(address(from), &CancellationToken::new()).now_or_never();
        admitted.unwrap().unwrap()
    }

    fn is_ended(place: &mut Place) -> bool {
        place.displaced().now_or_never().is_some()
    }

    #[test]
    fn further_request_takes_the_place_of_the_oldest() {
        let anonymous = Anonymous::new(2);
        let enter = || anonymous.enter(address("10.0.0.1"), None).unwrap();
        let [mut first, mut second] = [enter(), enter()];
        assert!(!is_ended(&mut first));
        let third = enter();
        assert!(is_ended(&mut first));
        drop(third);
        let _fourth = enter();
        assert!(!is_ended(&mut second));
        drop((first, second));
        assert_eq!(anonymous.places().taken.len(), 1);
    }

    #[test]
    fn flood_of_one_address_ends_only_its_own_requests() {
        let anonymous = Anonymous::new(4);
        let mut other = anonymous.enter(address("10.0.0.9"), None).unwrap();
        let mut flood: Vec<Place> =
            (0..50).map(|_| anonymous.enter(address("10.0.0.1"), None).unwrap()).collect();
        assert!(!is_ended(&mut other));
        assert_eq!(flood.iter_mut().filter_map(|place| (!is_ended(place)).then_some(())).count(), 3);
    }

    #[test]
    fn request_on_a_known_connection_is_not_ended_by_strangers() {
        let anonymous = Anonymous::new(2);
        let connections = ["10.0.0.1", "10.0.0.2"].map(connect);
        let mut watches = connections.each_ref().map(|connection| {
            let peer = connection.peer();
            // Clients watch before their first call.
            let place = anonymous.enter(peer.address(), Some(peer.clone())).unwrap();
            peer.mark_known();
            place
        });
        assert!(anonymous.enter(address("10.0.0.9"), None).is_none());
        assert!(watches.iter_mut().all(|watch| !is_ended(watch)));
    }

    #[test]
    fn known_connection_gets_a_place_of_an_address_with_many() {
        let anonymous = Anonymous::new(4);
        let [greedy, modest, late] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(connect);
        let enter = |connection: &PeerConnection| {
            connection.peer().mark_known();
            anonymous.enter(connection.peer().address(), Some(connection.peer().clone()))
        };
        let mut modest_watch = enter(&modest).unwrap();
        let mut greedy_watches = [enter(&greedy), enter(&greedy), enter(&greedy)].map(Option::unwrap);
        assert!(enter(&greedy).is_none(), "the greedy address has the most");
        let _late = enter(&late).unwrap();
        assert!(is_ended(&mut greedy_watches[0]) && !is_ended(&mut modest_watch));
    }

    #[test]
    fn connection_that_becomes_known_later_is_protected() {
        let limits = PeerLimits { connections_max: 9, per_address_max: 9, trusted: Vec::new(), shares: None };
        let peers = Peers::new(limits);
        let connect = |from: &str| {
            let admitted = peers.admit(address(from), &CancellationToken::new()).now_or_never();
            admitted.unwrap().unwrap()
        };
        let (client, stranger) = (connect("10.0.0.1"), connect("10.0.0.9"));
        let anonymous = Anonymous::new(1);
        let enter = |connection: &PeerConnection| {
            anonymous.enter(connection.peer().address(), Some(connection.peer().clone()))
        };
        let mut first = enter(&client).unwrap();
        let mut watch = enter(&client).unwrap();
        assert!(is_ended(&mut first), "its connection was unknown");
        client.peer().mark_known();
        assert!(enter(&stranger).is_none());
        assert!(!is_ended(&mut watch));
    }
}
