//! What an upload that was created before its bytes was answered when it was committed: whoever finishes it again gets the
//! same.

use super::{
    commit::{Answer, answer_of},
    upload::read_terms,
};
use crate::{
    app::{App, Error},
    domain::{
        caller::Caller,
        digest::Hasher,
        ids::{RequestId, UploadId},
    },
};

/// What a committed upload was answered.
pub(super) async fn answered(app: &App, caller: &Caller, id: UploadId) -> Result<Answer, Error> {
    let terms = read_terms(app, caller, Some(request_id(id))).await?;
    answer_of(terms.answered.ok_or(Error::NotFound("upload"))?)
}

/// The request id that an upload is committed under. Not the upload's own, which callers know and may use for one of their
/// requests: a digest of it, marked as what no client library makes (UUIDv8).
pub(super) fn request_id(id: UploadId) -> RequestId {
    let mut hasher = Hasher::default();
    hasher.field(b"commit of upload");
    hasher.field(id.as_uuid().as_bytes());
    let digest = hasher.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    RequestId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}
