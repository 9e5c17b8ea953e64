//! Strongroom is a multi-tenant file service. It receives files over gRPC, verifies them, stores them in an
//! object store, and serves them only to callers that may read them.
//!
//! # Layers
//!
//! ```text
//! cli ─ wires the parts together
//!  ├─ grpc   the gRPC API (`proto/`)      ┐
//!  ├─ edge   probes and metrics over HTTP ├─ entry points: decode, call `app`, encode
//!  └─ worker background jobs and ticks    ┘
//!        └─ app   the use cases, one per file
//!             ├─ jobs     background jobs, enqueued in the transaction that causes them: one closed enum
//!             ├─ db       PostgreSQL; the only module that uses diesel; one tenant per transaction
//!             ├─ storage  the object storage port, its adapters and decorators
//!             ├─ media    content type detection
//!             ├─ crypto   keys, sealing and token hashing
//!             └─ domain   types and rules without I/O
//! config, telemetry: the configuration; logs, traces and metrics
//! client: the Rust client: uploads from any reader, ranged downloads, watches (feature `client`)
//! ```
//!
//! `tests/architecture.rs` checks that imports follow these layers.
//!
//! # Invariants
//!
//! - An available version has its bytes in the store, with the recorded size and SHA-256. An upload without
//!   an explicit finish message creates no file.
//! - `used + reserved` never exceeds a tenant's limit, at any instant. Each reservation is released exactly
//!   once.
//! - PostgreSQL's row-level security hides other tenants' rows, even if every filter in this crate were
//!   removed.
//! - Another tenant's id and a random id get the same response.
//! - A change, its audit entry and its event are committed in one transaction. A disclosure is recorded
//!   before its first byte is sent.
//! - A retried mutation with the same request id has one effect and one response.
//! - A store belongs to one database, and only that one writes to it and deletes from it (`app::owner`).
//! - Memory is bounded by the configuration, not by the number of clients.
//!
//! `strongroom fsck` checks the invariants that can be checked on live data. `app::integrity::sweep` deletes
//! objects that a crash left in the store.
//!
//! # How to add
//!
//! - **an RPC**: declare it in `proto/` and document every field; add a line to `grpc/auth/access.rs`; write
//!   the use case in a new file in `app/`; add about four lines to the adapter in `grpc/`.
//! - **a migration**: a directory `migrations/<timestamp>_<verb_noun>/` with `up.sql` and `down.sql`. A new
//!   table calls `app.protect` in the same file. Functions are in `migrations/functions/`, one file each.
//! - **a job** (work that a change causes and that runs after its commit): a variant of [`jobs::Job`], an arm
//!   in `worker/dispatch.rs`, an idempotent use case in `app/`, and a call of [`jobs::enqueue_job`] in the
//!   transaction of the change. [`jobs`] lists the requirements on handlers.
//! - **periodic work**: a use case in `app/`, and a variant of `worker::schedule::Tick` with its arm. If the
//!   work has no bounded length, the tick enqueues one job per tenant.
//! - **a storage provider**: see [`storage`].

pub mod admission;
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
