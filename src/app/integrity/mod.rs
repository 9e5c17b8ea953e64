//! Whether the promises hold on live data, and what keeps them where a crash got in between.

pub(super) mod damage;
pub mod fsck;
pub mod sample;
pub mod sweep;
