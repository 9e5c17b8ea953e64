//! Admission: decides how much of the limited resources a caller may use.
//!
//! - [`shares`]: a pool of units, of which a tenant and each of its callers may hold a share of what is free.
//!   Requests, uploads, downloads, watches, messages, buffers, database connections, operations on object stores
//!   and hashing use it.
//! - [`turns`]: a queue that serves its owners in turn.
//! - [`rates`]: limits the number of events per second and key.
//! - [`subject_rates`]: the same for subjects that other services name.
//! - [`shared_rates`]: both for all processes, in Redis.
//! - [`peers`]: limits the connections of a port, in total and per address, tenant and caller, and closes idle ones to make
//!   room.
//!
//! Everything else here is in the memory of this process.

pub mod holder;
pub mod peers;
pub mod rates;
pub mod shared_rates;
pub mod shares;
pub mod subject_rates;
pub mod turns;

pub use self::{
    holder::{CallerKey, Holder},
    shares::{Acquisition, Exhausted, ShareLimits, ShareStatus, Shares, Slot, Waiter},
};

use crate::telemetry::metrics::{PeersState, SharesState};

impl From<ShareStatus> for SharesState {
    fn from(status: ShareStatus) -> Self {
        Self {
            capacity: status.capacity as u64,
            in_use: status.in_use as u64,
            waiting: status.waiting as u64,
            refused_caller: status.refused_caller,
            refused_tenant: status.refused_tenant,
            refused_process: status.refused_process,
        }
    }
}

impl From<peers::PeersStatus> for PeersState {
    fn from(status: peers::PeersStatus) -> Self {
        Self {
            open: status.open as u64,
            closed_for_room: status.closed_for_room,
            refused: status.refused,
            beyond_share: status.beyond_share,
        }
    }
}
