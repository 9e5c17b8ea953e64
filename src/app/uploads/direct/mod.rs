//! Direct uploads: the client sends the bytes straight to the store.
//!
//! A single-part upload is put under a staging key and copied to its own key on completion, so that a URL
//! that has not expired writes to an object that is never read. A larger upload is a multipart upload on its
//! own key. The service completes it, which makes its URLs invalid. In both cases the upload's row owns the
//! objects until the upload ends.
//!
//! `create` reserves the quota and prepares the store, `urls` signs the URLs, `complete` assembles the object
//! and commits the file as PROCESSING, and a job reads all of it (`verify`) before anyone else may. `completion`
//! checks what the client names when it completes the upload.

pub(super) mod complete;
mod completion;
pub(in crate::app) mod create;
pub mod urls;
pub mod verify;

use super::admit::{Target, new_target};
use crate::{
    app::{App, Error},
    domain::{caller::Caller, upload::Upload, upload_spec::ResolvedSpec},
    storage::PutOptions,
};

/// Chooses the location of a blob whose object clients write.
fn new_direct_target(app: &App, caller: &Caller, spec: &ResolvedSpec) -> Result<Target, Error> {
    let target = new_target(app, caller, spec)?;
    Ok(Target { options: PutOptions { has_presigned_parts: true, ..target.options }, ..target })
}

/// Returns the number of parts of an upload of this size. An empty upload has one part.
fn part_count(upload: &Upload, size_bytes: u64) -> u64 {
    size_bytes.div_ceil(upload.part_size_bytes).max(1)
}
