//! Takes a file out of the archive.

use super::{Changed, FileChange, archive};
use crate::{
    app::{App, Error},
    domain::{caller::Caller, file::File},
};

/// Makes the bytes of an archived file readable again, as far as their state allows it: at once, in whatever class of storage
/// they are; a job brings them back to the one of everything. A file that is not archived is
/// answered as it is.
///
/// # Errors
/// `NotFound`, `NotAllowed`, `FileDeleted`, `EtagMismatch`.
pub async fn unarchive(app: &App, caller: &Caller, change: FileChange) -> Result<Changed<File>, Error> {
    archive::set(app, caller, change, false).await
}
