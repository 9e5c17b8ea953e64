//! Strongroom keeps an organisation's files: it takes bytes in over gRPC, proves they are safe and belong there, and
//! hands them out only to those who may have them.

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
pub mod media;
pub mod proto;
pub mod storage;
pub mod telemetry;
pub mod worker;
