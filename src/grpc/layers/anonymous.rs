//! Limits the number of concurrent anonymous requests.
//!
//! Anyone can send them. A further request therefore ends another one: the oldest of the address that has the most,
//! so that the requests of one address end each other and not those of others. A health check takes microseconds
//! once its message has arrived, so a check that is ended early was one that did not send its message.
//!
//! Clients watch the health of the server on the connection of their calls, and stop their calls when the watch
//! ends. A request on a connection with a verified caller is therefore ended only for another one of that kind,
//! and only if its address has more of them. If there is no request to end, the further one is refused.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use crate::admission::peers::Peer;

/// The places of anonymous requests.
pub(super) struct Anonymous {
    places_max: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next_id: u64,
    /// The requests in progress, the oldest first.
    taken: VecDeque<Taken>,
}

struct Taken {
    id: u64,
    address: IpAddr,
    peer: Option<Peer>,
    /// Dropping it ends the request.
    _displaced: oneshot::Sender<()>,
}

impl Taken {
    fn is_known(&self) -> bool {
        self.peer.as_ref().is_some_and(Peer::is_known)
    }
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
        places.taken.push_back(Taken { id, address, peer, _displaced: sender });
        Some(Place { anonymous: Arc::clone(self), id, displaced })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // The queue is consistent after every statement, so a poisoned lock is safe to use.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Ends a request for one of this address. Returns whether there is one that may be ended.
    fn make_room(&mut self, address: IpAddr, is_known: bool) -> bool {
        let (known, unknown): (Vec<usize>, Vec<usize>) =
            (0..self.taken.len()).partition(|index| self.taken[*index].is_known());
        let victim = match (self.oldest_of_largest(&unknown, address), is_known) {
            (Some((index, _)), _) => Some(index),
            (None, true) => {
                let own = known.iter().filter(|index| self.taken[**index].address == address).count();
                let largest = self.oldest_of_largest(&known, address);
                largest.filter(|(_, count)| *count > own + 1).map(|(index, _)| index)
            }
            (None, false) => None,
        };
        victim.is_some_and(|index| self.taken.remove(index).is_some())
    }

    /// Returns the oldest of the requests of the address that has the most, and their number. Of several such
    /// addresses it is `preferred`, or that of the oldest request.
    fn oldest_of_largest(&self, indexes: &[usize], preferred: IpAddr) -> Option<(usize, usize)> {
        // The number of requests of each address, and the index of the oldest.
        let mut by_address: HashMap<IpAddr, (usize, usize)> = HashMap::new();
        for index in indexes {
            let (count, _oldest) = by_address.entry(self.taken[*index].address).or_insert((0, *index));
            *count += 1;
        }
        let rank = |address: &IpAddr, count: usize, oldest: usize| {
            (count, *address == preferred, std::cmp::Reverse(oldest))
        };
        let largest =
            by_address.iter().max_by_key(|(address, (count, oldest))| rank(address, *count, *oldest));
        largest.map(|(_, (count, oldest))| (*oldest, *count))
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
        let mut places = self.anonymous.places();
        // The queue is in the order of ids.
        if let Ok(index) = places.taken.binary_search_by_key(&self.id, |taken| taken.id) {
            places.taken.remove(index);
        }
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
}
