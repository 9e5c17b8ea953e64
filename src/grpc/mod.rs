//! The gRPC door: the tower stack, who may call what, and thin adapters that decode, call a use case, and
//! encode.
//!
//! To add an RPC: its line in [`auth::access`], its deadline class in `layers/deadline.rs`, its conversions
//! in `convert/`, and about four lines in the adapter of its service.

pub mod auth;
mod call;
mod connections;
mod convert;
mod downloads;
mod events;
mod files;
mod health;
mod imports;
mod layers;
mod policies;
mod quotas;
mod server;
mod service_info;
mod status;
mod tenants;
mod uploads;
mod webhooks;

pub use server::{GrpcServer, ServeError};
