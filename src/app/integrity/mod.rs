//! Whether the promises hold on live data.

pub mod fsck;
