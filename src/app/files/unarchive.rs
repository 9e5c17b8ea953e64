//! Unarchives a file.

use super::{MutationResponse, archive};
use crate::{
    app::{App, Error},
    domain::{
        caller::Caller,
        file::File,
        ids::{FileId, RequestId},
    },
};

/// Unarchives a file. Unless its content state prevents it, its bytes can be read immediately, from their
/// current storage class; a job moves them back to the standard class. Returns a file that is not archived
/// unchanged.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed` or `FileDeleted`.
pub async fn unarchive_file(
    app: &App,
    caller: &Caller,
    id: FileId,
    request_id: Option<RequestId>,
) -> Result<MutationResponse<File>, Error> {
    archive::set_archived(app, caller, id, false, request_id).await
}
