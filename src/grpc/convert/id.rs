//! Parsing of ids, which are text in messages.

use super::file;
use crate::{
    app::files::{FileChange, TransferRequest},
    domain::{
        ids::{FileId, RequestId, TenantId, UploadId},
        principal::canonical_id,
        upload_spec,
        violations::Violations,
    },
    proto::v1,
};

pub(in crate::grpc) fn parse_file_id(text: &str) -> Result<FileId, Violations> {
    text.parse().map_err(|_| Violations::one("file_id", "must be a UUID"))
}

pub(in crate::grpc) fn parse_upload_id(text: &str) -> Result<UploadId, Violations> {
    text.parse().map_err(|_| Violations::one("upload_id", "must be a UUID"))
}

/// The ids of a change to an upload.
pub(in crate::grpc) struct UploadChangeIds {
    pub(in crate::grpc) upload: UploadId,
    pub(in crate::grpc) request: Option<RequestId>,
}

pub(in crate::grpc) fn parse_upload_change(
    upload_id: &str,
    request_id: &str,
) -> Result<UploadChangeIds, Violations> {
    let mut violations = Violations::new();
    let upload =
        violations.ok_or_add("upload_id", upload_id.parse::<UploadId>().map_err(|_| "must be a UUID"));
    let request = parse_request_id(request_id, &mut violations);
    match upload {
        Some(upload) => violations.into_result().map(|()| UploadChangeIds { upload, request }),
        None => Err(violations),
    }
}

/// Parses file ids. Omits those that are invalid.
fn parse_file_ids(texts: &[String], violations: &mut Violations) -> Vec<FileId> {
    let parsed = texts.iter().enumerate().filter_map(|(index, text)| {
        violations
            .ok_or_add(&format!("file_ids[{index}]"), text.parse::<FileId>().map_err(|_| "must be a UUID"))
    });
    parsed.collect()
}

/// A request to get several files.
pub(in crate::grpc) struct BatchGetRequest {
    pub(in crate::grpc) files: Vec<FileId>,
    /// Whether the view is FULL.
    pub(in crate::grpc) is_full: bool,
}

pub(in crate::grpc) fn batch_get_request_from_proto(
    request: &v1::BatchGetFilesRequest,
) -> Result<BatchGetRequest, Violations> {
    let mut violations = Violations::new();
    let files = parse_file_ids(&request.file_ids, &mut violations);
    let is_full = file::is_full_view(request.view, &mut violations);
    violations.into_result().map(|()| BatchGetRequest { files, is_full })
}

/// The ids of a change to several files.
pub(in crate::grpc) struct BatchChangeIds {
    pub(in crate::grpc) files: Vec<FileId>,
    pub(in crate::grpc) request: Option<RequestId>,
}

pub(in crate::grpc) fn parse_batch_change(
    file_ids: &[String],
    request_id: &str,
) -> Result<BatchChangeIds, Violations> {
    let mut violations = Violations::new();
    let files = parse_file_ids(file_ids, &mut violations);
    let request = parse_request_id(request_id, &mut violations);
    violations.into_result().map(|()| BatchChangeIds { files, request })
}

/// Parses the common fields of requests to change a file.
pub(in crate::grpc) fn parse_file_change(
    file_id: &str,
    if_etag: String,
    request_id: &str,
) -> Result<FileChange, Violations> {
    let mut violations = Violations::new();
    let file = violations.ok_or_add("file_id", file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
    let request_id = parse_request_id(request_id, &mut violations);
    match file {
        Some(file) => violations.into_result().map(|()| FileChange { file, if_etag, request_id }),
        None => Err(violations),
    }
}

pub(in crate::grpc) fn transfer_request_from_proto(
    request: v1::TransferOwnershipRequest,
) -> Result<TransferRequest, Violations> {
    let mut violations = Violations::new();
    let request_id = parse_request_id(&request.request_id, &mut violations);
    violations.into_result()?;
    Ok(TransferRequest {
        from_user: canonical_id(&request.from_user_id),
        to_user: canonical_id(&request.to_user_id),
        limit: request.batch_size,
        is_dry_run: request.dry_run,
        request_id,
    })
}

/// Parses an optional request id; empty means none.
pub(in crate::grpc) fn parse_request_id(text: &str, violations: &mut Violations) -> Option<RequestId> {
    upload_spec::parse_request_id("request_id", text, violations)
}

/// Parses the optional tenant id of an operator's request; empty means none.
pub(in crate::grpc) fn parse_tenant_id(text: &str, violations: &mut Violations) -> Option<TenantId> {
    let parsed =
        (!text.is_empty()).then(|| text.parse::<TenantId>().map_err(|_| "must be a UUID, or empty"))?;
    violations.ok_or_add("tenant_id", parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_invalid_ids_of_a_batch_are_named() {
        let id = "0193a7a0-0000-7000-8000-000000000000".to_owned();
        let mut violations = Violations::new();
        assert_eq!(parse_file_ids(&["7".to_owned(), id, String::new()], &mut violations).len(), 1);
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file_ids[0]", "file_ids[2]"]);
    }

    #[test]
    fn both_invalid_ids_of_a_change_are_reported() {
        let violations = parse_file_change("7", String::new(), "8").unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file_id", "request_id"]);
        let id = "0193a7a0-0000-7000-8000-000000000000";
        assert!(parse_file_change(id, String::new(), "").unwrap().request_id.is_none());
        assert!(parse_file_change(id, String::new(), id).unwrap().request_id.is_some());
    }
}
