//! The units that a holder has, and its queued request for them.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Exhausted, Shares};
use crate::admission::holder::Holder;

/// A queued request for units. Dropping it lets later waiters proceed.
#[derive(Debug)]
pub struct Waiter {
    pub(super) pool: Arc<Shares>,
    pub(super) holder: Holder,
    pub(super) reason: Exhausted,
    pub(super) receiver: oneshot::Receiver<Slot>,
}

impl Waiter {
    /// Waits for the units.
    pub async fn granted(&mut self) -> Slot {
        match (&mut self.receiver).await {
            Ok(slot) => slot,
            // The sender is dropped only with this waiter, or after it has sent.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.receiver.close();
        self.pool.state().remove_abandoned(self.holder.owner);
        self.pool.release(self.holder, 0);
    }
}

/// Units of a pool. Dropping it releases them.
#[derive(Debug)]
pub struct Slot {
    pub(super) pool: Arc<Shares>,
    pub(super) holder: Holder,
    pub(super) units: usize,
}

impl Slot {
    /// Adds the units of another slot of the same holder.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(self.holder == other.holder && Arc::ptr_eq(&self.pool, &other.pool));
        self.units += std::mem::take(&mut other.units);
    }

    /// Makes another holder hold the units.
    ///
    /// # Errors
    /// Returns `Exhausted` if the share of the new holder does not allow it. The units then stay with the
    /// previous holder.
    pub fn reassign(&mut self, holder: Holder) -> Result<(), Exhausted> {
        let mut state = self.pool.state();
        state.give_back(self.holder, self.units);
        let taken = state.try_take(&self.pool.limits, holder, self.units);
        state.count_refusal(taken);
        match taken {
            Ok(()) => self.holder = holder,
            Err(_) => state.take(self.holder, self.units),
        }
        drop(state);
        // The previous holder may have waiters.
        self.pool.release(self.holder, 0);
        taken
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.units > 0 {
            self.pool.release(self.holder, self.units);
        }
    }
}
