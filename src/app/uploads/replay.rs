//! Replays the response of a committed upload, so that completing the upload again returns the same response.

use super::{
    admit::read_admission_data,
    commit::{CommittedUpload, read_response},
};
use crate::{
    app::{App, Error, Resource},
    domain::{
        caller::Caller,
        digest::Hasher,
        ids::{RequestId, UploadId},
    },
};

/// Returns the stored response of a committed upload.
///
/// # Errors
/// Returns `NotFound` if no response is stored for this upload.
pub(super) async fn replay_committed_upload(
    app: &App,
    caller: &Caller,
    id: UploadId,
) -> Result<CommittedUpload, Error> {
    let admission = read_admission_data(app, caller, Some(commit_request_id(id))).await?;
    read_response(admission.response.ok_or(Error::NotFound(Resource::Upload))?)
}

/// Returns the request id under which an upload is committed.
///
/// It is a digest of the upload's id and not the id itself, because callers have the id and could use it for
/// another request. It is a UUIDv8, which no client library generates.
pub(super) fn commit_request_id(id: UploadId) -> RequestId {
    let mut hasher = Hasher::default();
    hasher.field(b"commit of upload");
    hasher.field(id.as_uuid().as_bytes());
    let digest = hasher.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    RequestId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}
