//! Bytes in. `upload` checks the spec, receives the bytes under the process-wide byte budget, stores them, and commits.
//!
//! An upload that is created before its bytes can be gone on with: each part is recorded when it is in the store, with all
//! that another replica needs to go on behind it. Whoever sends takes the upload over, and fences whoever did before.
//!
//! A small file (its finish arrives within one part) takes one write and one transaction: no upload row, no reservation;
//! the update that charges the quota makes it visible. A larger one opens an upload that holds a reservation, and its
//! parts are written in parallel while more bytes arrive.

pub(super) mod budget;
pub mod cancel;
pub(super) mod commit;
pub mod complete;
mod content;
pub mod create;
mod direct;
pub mod direct_urls;
pub mod expire;
pub mod get;
pub(super) mod hashing;
pub mod list;
mod message;
mod open;
mod pace;
mod part;
mod persisted;
mod receive;
pub mod resume;
pub mod upload;
pub mod upload_part;
pub mod verify;
mod version;
mod warnings;
mod write;

pub use message::UploadMessage;
pub use warnings::{Warning, WarningCode};
