//! Uploads. `upload` checks the spec, receives the bytes under the process-wide byte budget, stores them, and
//! commits.
//!
//! An upload that is created before its bytes can be resumed. Each part is recorded once it is in the store,
//! together with the state that another replica needs to continue after it. A new writer takes over the
//! upload's lease and fences the previous writer.
//!
//! A small file (the finish message arrives within the first part) takes one write and one transaction,
//! without an upload row or a reservation: the update that charges the quota makes the file visible. A larger
//! file opens an upload that holds a reservation, and its parts are written in parallel while more bytes
//! arrive.
//!
//! Modules: `receive` receives the bytes of a stream or a part, `resumable` contains the use cases for
//! uploads that are created before their bytes, and `direct` those for uploads whose bytes go straight to the
//! store. The other modules are shared: the location of a new blob (`target`), the reservation (`open`,
//! `record`), the errors (`error`), and the two ways an upload ends (`commit`, `abandon`).

mod abandon;
pub(super) mod admit;
pub(super) mod commit;
pub mod direct;
mod error;
pub mod expire;
mod open;
mod receive;
mod record;
mod replay;
mod resumable;
mod upload;
mod warnings;

pub(super) use self::receive::{budget::ByteBudget, content::HashingLimiter};
pub use self::{
    commit::CommittedUpload,
    direct::urls::presign_upload_urls,
    error::{Stall, UploadError, UploadStreamOrder},
    receive::message::{CompletedPart, Completion, PartMessage, UploadMessage},
    resumable::{
        cancel::cancel_upload, complete::complete_upload, create::create_upload, get::get_upload,
        list::list_uploads, resume::resume_upload, upload_part::upload_part,
    },
    upload::upload_file,
    warnings::{Warning, WarningCode},
};
