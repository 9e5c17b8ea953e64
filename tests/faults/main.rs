//! Fault injection. Each test breaks a dependency of the service or its clients, and checks that no
//! acknowledged data is lost, no partial file is visible, quotas are exact, errors are clear, and the service
//! recovers without intervention.
//!
//! | fault | file |
//! |---|---|
//! | object store: unreachable, slow, temporary errors, broken connections, wrong responses | `store.rs` |
//! | PostgreSQL: restart, connection lost during a commit, exhausted connection pool | `database.rs` |
//! | PostgreSQL: connection lost during the commit of any other mutation | `lost_commits.rs` |
//! | PostgreSQL: failover to a standby, and the owner of the store | `owner.rs` |
//! | PostgreSQL: restore, failover and recovery to an earlier time, and the positions of events | `epochs.rs` |
//! | local provider: full disk | `disk.rs` |
//! | clients: stalled, slow, one byte per message, disappearing, flooding | `clients.rs` |
//! | many concurrent uploads: larger than the buffers | `concurrent_uploads.rs`, `tests/e2e/concurrent_uploads.rs` |
//!
//! The tests use the service of `tests/service/harness`, which checks the invariants after every test. Run
//! them with `scripts/with-postgres scripts/with-garage scripts/with-moto cargo test --test faults`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers in tests are small")]

mod clients;
mod concurrent_uploads;
mod database;
mod disk;
mod epochs;
#[allow(dead_code, unused_imports, reason = "other tests use the rest of the harness")]
#[path = "../service/harness/mod.rs"]
mod harness;
mod lost_commits;
mod owner;
mod private_postgres;
mod proxy;
mod store;
