//! Ids, as text on the wire.

use super::file;
use crate::{
    app::files::{FileChange, transfer_ownership::Transfer},
    domain::{
        ids::{FileId, RequestId, TenantId, UploadId},
        upload_spec,
        violations::Violations,
    },
    proto::v1,
};

/// A file's id and nothing else.
pub(in crate::grpc) fn file_id(text: &str) -> Result<FileId, Violations> {
    text.parse().map_err(|_| Violations::one("file_id", "must be a UUID"))
}

/// An upload's id and nothing else.
pub(in crate::grpc) fn upload_id(text: &str) -> Result<UploadId, Violations> {
    text.parse().map_err(|_| Violations::one("upload_id", "must be a UUID"))
}

/// An upload's id and a request id.
pub(in crate::grpc) fn upload_change(
    upload_id: &str,
    request_id: &str,
) -> Result<(UploadId, Option<RequestId>), Violations> {
    let mut wrong = Violations::new();
    let upload = wrong.take("upload_id", upload_id.parse::<UploadId>().map_err(|_| "must be a UUID"));
    let request = self::request_id(request_id, &mut wrong);
    match upload {
        Some(upload) => wrong.into_result().map(|()| (upload, request)),
        None => Err(wrong),
    }
}

/// The ids of several files; those that are none are left out.
fn file_ids(texts: &[String], wrong: &mut Violations) -> Vec<FileId> {
    let parsed = texts.iter().enumerate().filter_map(|(place, text)| {
        wrong.take(&format!("file_ids[{place}]"), text.parse::<FileId>().map_err(|_| "must be a UUID"))
    });
    parsed.collect()
}

/// The ids of a batch, and whether it is shown in full.
pub(in crate::grpc) fn batch(request: &v1::BatchGetFilesRequest) -> Result<(Vec<FileId>, bool), Violations> {
    let mut wrong = Violations::new();
    let ids = file_ids(&request.file_ids, &mut wrong);
    let is_full = file::is_full(request.view, &mut wrong);
    wrong.into_result().map(|()| (ids, is_full))
}

/// The ids of several files and a request id.
pub(in crate::grpc) fn batch_change(
    file_ids: &[String],
    request_id: &str,
) -> Result<(Vec<FileId>, Option<RequestId>), Violations> {
    let mut wrong = Violations::new();
    let ids = self::file_ids(file_ids, &mut wrong);
    let request = self::request_id(request_id, &mut wrong);
    wrong.into_result().map(|()| (ids, request))
}

/// The file to change, the precondition and the request id, which most changes of files have.
pub(in crate::grpc) fn change(
    file_id: &str,
    if_etag: String,
    request_id: &str,
) -> Result<FileChange, Violations> {
    let mut wrong = Violations::new();
    let file = wrong.take("file_id", file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
    let request_id = self::request_id(request_id, &mut wrong);
    match file {
        Some(file) => wrong.into_result().map(|()| FileChange { file, if_etag, request_id }),
        None => Err(wrong),
    }
}

/// Whose files go to whom.
pub(in crate::grpc) fn transfer(request: v1::TransferOwnershipRequest) -> Result<Transfer, Violations> {
    let mut wrong = Violations::new();
    let request_id = self::request_id(&request.request_id, &mut wrong);
    wrong.into_result()?;
    Ok(Transfer {
        from_user: request.from_user_id,
        to_user: request.to_user_id,
        limit: request.batch_size,
        is_dry_run: request.dry_run,
        request_id,
    })
}

/// A request id; empty is none.
pub(in crate::grpc) fn request_id(text: &str, wrong: &mut Violations) -> Option<RequestId> {
    upload_spec::request_id("request_id", text, wrong)
}

/// The tenant that an operator names; empty is none.
pub(in crate::grpc) fn tenant_id(text: &str, wrong: &mut Violations) -> Option<TenantId> {
    let named =
        (!text.is_empty()).then(|| text.parse::<TenantId>().map_err(|_| "must be a UUID, or empty"))?;
    wrong.take("tenant_id", named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_id_of_a_batch_is_named() {
        let id = "0193a7a0-0000-7000-8000-000000000000".to_owned();
        let mut wrong = Violations::new();
        assert_eq!(file_ids(&["7".to_owned(), id, String::new()], &mut wrong).len(), 1);
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file_ids[0]", "file_ids[2]"]);
    }

    #[test]
    fn both_ids_of_a_change_are_reported_together() {
        let wrong = change("7", String::new(), "8").unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file_id", "request_id"]);
        let id = "0193a7a0-0000-7000-8000-000000000000";
        assert!(change(id, String::new(), "").unwrap().request_id.is_none());
        assert!(change(id, String::new(), id).unwrap().request_id.is_some());
    }
}
