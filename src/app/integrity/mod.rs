//! Checks the invariants on live data, and cleans up after crashes.

pub(super) mod block_record;
pub(super) mod damage;
pub mod delete_stray_objects;
pub mod fsck;
pub(super) mod read_object;
pub(super) mod recheck;
pub mod sample;
pub mod scrub;
pub mod sweep;
