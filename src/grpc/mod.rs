//! The gRPC server: the tower stack, authentication, the access table, and one adapter per service. An
//! adapter decodes requests, calls use cases and encodes responses.
//!
//! To add an RPC, add its line to [`auth::access`], its deadline class to `layers/deadline.rs`, its
//! conversions to `convert/`, and its method to the adapter of its service.

mod arrivals;
pub mod auth;
mod call;
mod client_address;
mod connections;
mod convert;
mod downloads;
mod events;
mod files;
mod health;
mod imports;
mod layers;
mod message_limits;
mod methods;
mod peer_waits;
mod policies;
mod quotas;
mod rate_actions;
mod server;
mod service_info;
mod shares;
mod status;
mod tenants;
mod uploads;
mod visitor;
mod webhooks;

pub use server::{GrpcServer, ServeError};
