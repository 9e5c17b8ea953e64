//! The real binary, against a real PostgreSQL and the local provider. Run through `scripts/with-postgres`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod crash;
mod database;
mod dev;
mod identity;
mod large;
mod life;
mod server;
