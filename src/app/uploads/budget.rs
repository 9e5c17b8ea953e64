//! One byte budget for the buffers of all uploads of this process.
//!
//! A part's buffer grows with the bytes that arrive, so a thousand slow uploads hold little. Growing parts could wait for
//! each other for ever, each with half a part; so one at a time may fill its part from a reserve beside the pool, write
//! it out and give its room back. Memory is bounded by the pool plus one part.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget. Cheap to clone.
#[derive(Clone)]
pub(in crate::app) struct ByteBudget(Arc<Pool>);

struct Pool {
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    reserve: Arc<Semaphore>,
}

impl ByteBudget {
    /// A pool of `bytes_max`, of which one part is kept as the reserve.
    pub(in crate::app) fn new(bytes_max: usize, part_size_bytes: usize) -> Self {
        let bytes_max = bytes_max.saturating_sub(part_size_bytes);
        let bytes = Arc::new(Semaphore::new(bytes_max));
        Self(Arc::new(Pool { bytes, bytes_max, reserve: Arc::new(Semaphore::new(1)) }))
    }

    /// The room of a part that holds nothing yet.
    pub(super) fn room(&self) -> Room {
        Room { pool: Arc::clone(&self.0), held: None, reserve: None }
    }

    /// How many bytes are held now, without the reserve.
    pub(in crate::app) fn used_bytes(&self) -> u64 {
        (self.0.bytes_max - self.0.bytes.available_permits()) as u64
    }
}

/// What one part holds of the budget. Dropping it gives everything back.
pub(super) struct Room {
    pool: Arc<Pool>,
    held: Option<OwnedSemaphorePermit>,
    reserve: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Waits for room for so many bytes more.
    pub(super) async fn grow(&mut self, bytes: usize) {
        if self.reserve.is_some() {
            return;
        }
        // A message is at most 2 MiB, so the count always fits.
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            Ok(more) = Arc::clone(&self.pool.bytes).acquire_many_owned(count) => match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            },
            Ok(reserve) = Arc::clone(&self.pool.reserve).acquire_owned() => self.reserve = Some(reserve),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_dropped_part_gives_its_room_back() {
        let budget = ByteBudget::new(120, 20);
        let mut room = budget.room();
        room.grow(60).now_or_never().unwrap();
        room.grow(40).now_or_never().unwrap();
        assert_eq!(budget.used_bytes(), 100);
        drop(room);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn parts_that_fill_the_pool_half_way_do_not_wait_for_each_other_for_ever() {
        let budget = ByteBudget::new(120, 20);
        let mut parts = [budget.room(), budget.room(), budget.room()];
        for part in &mut parts {
            part.grow(33).now_or_never().unwrap();
        }
        let [first, second, third] = &mut parts;
        first.grow(33).now_or_never().expect("one takes the reserve");
        first.grow(1_000).now_or_never().expect("and may fill its part");
        assert!(second.grow(33).now_or_never().is_none(), "the next must wait");
        assert!(third.grow(33).now_or_never().is_none());
        let [first, mut second, _third] = parts;
        drop(first);
        second.grow(33).now_or_never().expect("until the first has written its part");
    }
}
