//! The real binary, against a real PostgreSQL and the local provider. Run through `scripts/with-postgres`.

mod crash;
mod database;
mod dev;
mod identity;
mod large;
mod life;
mod server;
