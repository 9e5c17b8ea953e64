//! The counts of a run.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::metrics::ScrubOutcome;

/// The objects that were read, by outcome.
#[derive(Debug, Default)]
pub(super) struct ScrubCounts {
    verified: AtomicU64,
    damaged: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

impl ScrubCounts {
    pub(super) fn add(&self, outcome: ScrubOutcome) {
        let count = match outcome {
            ScrubOutcome::Verified => &self.verified,
            ScrubOutcome::Damaged => &self.damaged,
            ScrubOutcome::Unconfirmed | ScrubOutcome::Failed => &self.failed,
            ScrubOutcome::Superseded => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn verified(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    pub(super) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Returns the number of objects that must be read again: the read failed, or did not confirm a suspicion.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
