//! Unarchives a file.

use super::{FileChange, MutationResponse, archive};
use crate::{
    app::{App, Error},
    domain::{caller::Caller, file::File},
};

/// Unarchives a file. Unless its content state prevents it, its bytes can be read immediately, from their
/// current storage class; a job moves them back to the standard class. Returns a file that is not archived
/// unchanged.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed`, `FileDeleted` or `EtagMismatch`.
pub async fn unarchive_file(
    app: &App,
    caller: &Caller,
    change: FileChange,
) -> Result<MutationResponse<File>, Error> {
    archive::set_archived(app, caller, change, false).await
}
