//! Bytes in. `upload` checks the spec, receives the bytes under the process-wide byte budget, stores them, and commits.
//!
//! An upload that is created before its bytes can be gone on with: each part is recorded when it is in the store, with all
//! that another replica needs to go on behind it. Whoever sends takes the upload over, and fences whoever did before.
//!
//! A small file (its finish arrives within one part) takes one write and one transaction: no upload row, no reservation;
//! the update that charges the quota makes it visible. A larger one opens an upload that holds a reservation, and its
//! parts are written in parallel while more bytes arrive.
//!
//! The rooms: `receive` takes the bytes of a stream or of a part; `resumable` has the verbs of uploads that are created before
//! their bytes; `direct` those of uploads whose bytes go straight to the store. Beside them stand what all of them use: the
//! place of a new blob (`target`), the reservation (`open`, `record`), the two ends (`commit`, `give_up`).

mod answered;
pub(super) mod commit;
pub mod direct;
pub mod expire;
mod give_up;
mod open;
mod receive;
mod record;
mod refusals;
pub mod resumable;
mod target;
pub mod upload;
mod version;
mod warnings;

pub(super) use self::receive::{budget::ByteBudget, hashing::Hashing};
pub use self::{
    receive::message::{Completion, PartMessage, UploadMessage},
    warnings::{Warning, WarningCode},
};
