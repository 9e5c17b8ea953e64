//! Between the messages of the contract and the domain, one file per noun. What comes in is only read here,
//! and what cannot be read is reported with the path of its field as the caller wrote it; rules are checked
//! further in.

pub(super) mod download;
pub(super) mod file;
pub(super) mod filter;
pub(super) mod id;
pub(super) mod import;
pub(super) mod policy;
pub(super) mod quota;
pub(super) mod service_info;
pub(super) mod structs;
pub(super) mod tenant;
pub(super) mod time;
pub(super) mod update;
pub(super) mod upload;
pub(super) mod version;
pub(super) mod watch;
pub(super) mod webhook;

#[cfg(test)]
mod encoded_size_tests;
