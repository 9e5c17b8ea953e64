//! The real binary, against a real PostgreSQL, with files on disk and in a real S3 server. Run through
//! `scripts/with-postgres scripts/with-garage scripts/with-moto`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod archive;
mod crash;
mod crowd;
mod database;
mod dev;
mod direct;
mod garage;
mod gate;
mod identity;
mod large;
mod life;
mod mixed_load;
mod postgres;
mod resume;
mod server;
mod storage;
mod worker;
