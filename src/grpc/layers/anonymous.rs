//! Limits the number of concurrent anonymous requests.
//!
//! Anyone can send them, so no share can be fair. A further request therefore ends the oldest one: a health
//! check takes microseconds after its message has arrived, so a check that is ended early is one whose message
//! has not arrived.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::sync::oneshot;

/// The places of anonymous requests.
pub(super) struct Anonymous {
    places_max: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next_id: u64,
    /// The requests in progress, the oldest first.
    taken: VecDeque<(u64, oneshot::Sender<()>)>,
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

    /// Takes a place. If none is free, ends the oldest request and takes its place.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let mut places = self.places();
        while places.taken.len() >= self.places_max {
            // Dropping the sender ends the request.
            if places.taken.pop_front().is_none() {
                break;
            }
        }
        let (sender, displaced) = oneshot::channel();
        let id = places.next_id;
        places.next_id += 1;
        places.taken.push_back((id, sender));
        Place { anonymous: Arc::clone(self), id, displaced }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // The queue is consistent after every statement, so a poisoned lock is safe to use.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until another request takes the place.
    pub(super) async fn displaced(&mut self) {
        std::future::poll_fn(|context| self.poll_displaced(context)).await;
    }

    pub(super) fn poll_displaced(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.displaced).poll(context).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.anonymous.places();
        // The queue is in the order of ids.
        if let Ok(index) = places.taken.binary_search_by_key(&self.id, |(id, _)| *id) {
            places.taken.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn further_request_takes_the_place_of_the_oldest() {
        let anonymous = Anonymous::new(2);
        let [mut first, mut second] = [anonymous.enter(), anonymous.enter()];
        assert!(first.displaced().now_or_never().is_none());
        let third = anonymous.enter();
        assert!(first.displaced().now_or_never().is_some());
        drop(third);
        let _fourth = anonymous.enter();
        assert!(second.displaced().now_or_never().is_none());
        drop((first, second));
        assert_eq!(anonymous.places().taken.len(), 1);
    }
}
