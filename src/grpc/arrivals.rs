//! The bytes of a call that have arrived: a layer below the decoding of messages counts them, and the adapter of the
//! call reads them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::app::uploads::Arrived;

/// The bytes of one call that have arrived. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrivals(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    total_bytes: AtomicU64,
    incomplete_bytes: AtomicU64,
}

impl Arrivals {
    /// Adds bytes. `incomplete_bytes` is the part of the current message that has arrived, if it is not complete.
    pub(super) fn record(&self, bytes: usize, incomplete_bytes: usize) {
        self.0.total_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.0.incomplete_bytes.store(incomplete_bytes as u64, Ordering::Relaxed);
    }

    /// Returns what has arrived so far.
    pub(super) fn arrived(&self) -> Arrived {
        Arrived {
            total_bytes: self.0.total_bytes.load(Ordering::Relaxed),
            incomplete_bytes: self.0.incomplete_bytes.load(Ordering::Relaxed),
        }
    }
}
