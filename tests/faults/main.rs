//! Faults, by name: each has a test that breaks what the service stands on, or the other end of the line, and checks the
//! promise that the service keeps all the same: nothing lost, nothing visible half, the quota exact, a clear answer, and a
//! service that recovers by itself.
//!
//! | what breaks | where |
//! |---|---|
//! | the object store: down, slow, failing for a while, cut off, answering wrongly | `store.rs` |
//! | PostgreSQL: restarted, cut at the commit of an upload, all connections busy | `database.rs` |
//! | PostgreSQL: cut at the commit of any other mutation | `lost_commits.rs` |
//! | the local provider's disk: full | `disk.rs` |
//! | clients: that stall, drip, send byte by byte, disappear, flood | `clients.rs` |
//! | crowds: more large chunks than there is room for | `crowds.rs`; a thousand at once: `tests/e2e/crowd.rs` |
//!
//! The service is the one of `tests/service/harness`, which checks the books after every test. Run through
//! `scripts/with-postgres scripts/with-garage scripts/with-moto cargo test --test faults`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers of tests are small")]

mod clients;
mod crowds;
mod database;
mod disk;
#[allow(dead_code, unused_imports, reason = "it serves other tests too")]
#[path = "../service/harness/mod.rs"]
mod harness;
mod lost_commits;
mod own_postgres;
mod proxy;
mod store;
