//! End-to-end tests of the `strongroom` binary with a real PostgreSQL, and with objects on disk and on real
//! S3 servers. Run them with `scripts/with-postgres scripts/with-garage scripts/with-moto cargo test --test
//! e2e`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod archive;
mod attack;
mod concurrent_uploads;
mod crowd;
mod database;
mod dev;
mod direct;
mod direct_worker;
mod documents;
mod envoy;
mod garage;
mod gate;
mod identity;
mod import;
mod kills;
mod large;
mod lifecycle;
mod migrations;
mod postgres;
mod restore;
mod resume;
mod scrub;
mod server;
mod shares;
#[path = "../stalled_calls/mod.rs"]
mod stalled_calls;
mod storage;
mod unsafe_database;
mod worker;
