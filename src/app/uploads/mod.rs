//! Uploads. `upload` checks the spec, receives the bytes under the process-wide byte budget, and stores and
//! commits them.
//!
//! An upload that is created before its bytes can be resumed. Each part is recorded once it is in the store,
//! together with the state that another process needs to continue after it. A new writer takes over the
//! upload's lease and fences the previous writer.
//!
//! A small file (the finish message arrives within the first part) takes one write and one transaction,
//! without an upload row or a reservation: the update that charges the quota makes the file visible. A larger
//! file opens an upload that holds a reservation, and its parts are written in parallel while more bytes
//! arrive.
//!
//! Modules, in the order in which an upload passes them. None of them uses a later one:
//!
//! - `error`: the errors, the size limit, and the counts of uploads by outcome. All stages use it.
//! - `admit`: checks everything before the first byte, and chooses the location of the blob.
//! - `open`: the reservation, the lease and the multipart upload of a file that is not small.
//! - `receive`: receives the bytes of a stream or a part.
//! - `commit`: makes the object complete and durable, makes the file visible, and cleans up.
//!
//! The use cases call these stages. Read `upload` first, which uploads a file in a single stream. `direct` contains
//! the use cases for uploads whose bytes go straight to the store, `resumable` those for uploads that are created
//! before their bytes, and `expire` abandons uploads whose lease has expired.

pub(super) mod admit;
mod commit;
pub mod direct;
mod error;
pub mod expire;
mod open;
mod receive;
mod resumable;
mod upload;

pub(crate) use self::error::bytes_per_second;
pub(super) use self::{
    commit::batch::UploadCommitter,
    receive::{budget::ByteBudget, content::HashingLimiter},
};
pub use self::{
    commit::{CommittedUpload, Warning, WarningCode},
    direct::urls::presign_upload_urls,
    error::{OpenUploadScope, Stall, UploadError, UploadStreamOrder},
    receive::{
        message::{CompletedPart, Completion, PartMessage, UploadMessage},
        pace::{Arrived, PaceLimits, PaceMonitor, UploadStream},
    },
    resumable::{
        cancel::cancel_upload, complete::complete_upload, create::create_upload, get::get_upload,
        list::list_uploads, resume::resume_upload, upload_part::upload_part,
    },
    upload::upload_file,
};
