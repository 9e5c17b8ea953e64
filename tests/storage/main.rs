//! The S3 adapter against real servers: Garage, which verifies signatures and checksums, and moto, which heeds the
//! headers that Garage ignores. Run through `scripts/with-garage scripts/with-moto cargo test --test storage`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod foreign;
mod garage;
mod moto;
mod settings;
