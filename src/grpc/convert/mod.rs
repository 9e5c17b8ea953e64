//! Conversions between messages of the API and types of the application, one file per noun.
//!
//! `to_proto` and `from_proto` convert the type that the file is named after; `x_to_proto` and `x_from_proto`
//! convert other types; `parse_x` reads a single field. Conversions report unreadable fields by their path in
//! the request. Rules are checked by the application.

pub(super) mod access_log;
pub(super) mod credits;
pub(super) mod download;
pub(super) mod erasure;
pub(super) mod file;
pub(super) mod filter;
pub(super) mod grant;
pub(super) mod id;
pub(super) mod import;
pub(super) mod policy;
pub(super) mod quota;
pub(super) mod quota_alert;
pub(super) mod quota_check;
pub(super) mod rate_limits;
pub(super) mod service_info;
pub(super) mod share;
pub(super) mod structs;
pub(super) mod tenant;
pub(super) mod time;
pub(super) mod update;
pub(super) mod upload;
pub(super) mod usage;
pub(super) mod usage_recalculation;
pub(super) mod version;
pub(super) mod visit;
pub(super) mod watch;
pub(super) mod webhook;

#[cfg(test)]
mod encoded_size_tests;
