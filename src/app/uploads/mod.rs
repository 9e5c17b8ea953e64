//! Bytes in. `upload` checks the spec, receives the bytes under the process-wide byte budget, stores them, and commits.
//!
//! A small file (its finish arrives within one part) takes one write and one transaction: no upload row, no reservation;
//! the update that charges the quota makes it visible. A larger one opens an upload that holds a reservation, and its
//! parts are written in parallel while more bytes arrive.

pub(super) mod budget;
pub(super) mod commit;
mod content;
pub mod expire;
pub(super) mod hashing;
mod message;
mod open;
mod part;
mod receive;
pub mod upload;
mod version;
mod warnings;

pub use message::UploadMessage;
pub use warnings::{Warning, WarningCode};
