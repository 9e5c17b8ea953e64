//! Tests the S3 adapter against real servers: Garage, which verifies signatures and checksums, and moto,
//! which supports the headers that Garage ignores. Run them with `scripts/with-garage scripts/with-moto cargo
//! test --test storage`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first failure")]

mod garage;
mod import_source;
mod moto;
mod settings;
