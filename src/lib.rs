//! Strongroom keeps an organisation's files: it takes bytes in over gRPC, proves they are safe and belong there, and
//! hands them out only to those who may have them.
//!
//! # The layers
//!
//! ```text
//! cli ─ assembles everything
//!  ├─ grpc   the contract (`proto/`)      ┐
//!  ├─ edge   probes and metrics over HTTP ├─ entrances: decode, call `app`, encode
//!  └─ worker what no request waits for    ┘
//!        └─ app   the use cases, one verb a file
//!             ├─ jobs     what can be asked for, to be done after the commit: one closed enum
//!             ├─ db       PostgreSQL, the only place that names diesel; one tenant a transaction
//!             ├─ storage  the port to the bytes, its adapters and decorators
//!             ├─ media    what the bytes say about themselves
//!             ├─ crypto   keys and what they seal
//!             └─ domain   the rules, pure
//! config, telemetry: what an operator sets, and what an operator sees
//! client: the contract from Rust: uploads from any reader, ranged downloads, watches (feature `client`)
//! ```
//!
//! `tests/architecture.rs` keeps imports pointing this way.
//!
//! # What always holds
//!
//! - An available version has its bytes in the store, with the recorded size and SHA-256. Without an explicit finish
//!   message there is no file.
//! - `used + reserved` never exceeds a tenant's limit, at any instant; each reservation ends exactly once.
//! - With every filter of this crate removed, PostgreSQL still shows no tenant another's rows.
//! - Another tenant's id and a random id get the same answer.
//! - A change, its audit entry and its event are one transaction. A disclosure is recorded before its first byte leaves.
//! - A retried mutation with the same request id has one effect and one answer.
//! - Memory is bounded by the configuration, not by the number of clients.
//!
//! `strongroom fsck` checks those that can be checked on live data; `app::integrity::sweep` removes what crashes leave.
//!
//! # How to add
//!
//! - **an RPC**: declare it in `proto/`, with every field explained; give it a line in `grpc/auth/access.rs`; write the
//!   use case as a file of its own in `app/`; add about four lines to the adapter in `grpc/`.
//! - **a migration**: a folder `migrations/<timestamp>_<verb_noun>/` with `up.sql` and `down.sql`; a table calls
//!   `app.protect` in the same file.
//! - **a job**, work that a change asks for and that is done after it: a variant of [`jobs::Job`], an arm in
//!   `worker/dispatch.rs`, a use case in `app/` that is idempotent, and [`jobs::enqueue`] in the transaction of its cause. What
//!   a handler must be is said in [`jobs`].
//! - **work by the clock**: a use case in `app/`, a variant of `worker::schedule::Tick` and its arm there. Work of unknown
//!   length is found by the tick and done by a job for each tenant.
//! - **a storage provider**: see [`storage`].

pub mod app;
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod crypto;
pub mod db;
pub mod domain;
pub mod edge;
pub mod grpc;
pub mod jobs;
pub mod media;
pub mod proto;
pub mod storage;
pub mod telemetry;
pub mod worker;
