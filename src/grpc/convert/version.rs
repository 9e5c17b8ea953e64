//! Conversions of file versions and of the requests for them.

use super::{file, id, time};
use crate::{
    app::files::{CopyRequest, FileChange, FileVersionList, ListVersionsRequest, RestoreRequest},
    domain::{
        file::{FileVersion, project_state},
        ids::FileId,
        storage_class::StorageClass,
        violations::Violations,
    },
    proto::v1,
};

pub(in crate::grpc) fn list_request_from_proto(
    request: v1::ListFileVersionsRequest,
) -> Result<ListVersionsRequest, Violations> {
    let file = id::parse_file_id(&request.file_id)?;
    Ok(ListVersionsRequest { file, page_size: request.page_size, page_token: request.page_token })
}

pub(in crate::grpc) fn list_to_proto(list: FileVersionList) -> v1::ListFileVersionsResponse {
    let FileVersionList { versions, current_version, next_page_token } = list;
    let versions = versions.into_iter().map(|version| to_proto(version, current_version)).collect();
    v1::ListFileVersionsResponse { versions, next_page_token }
}

fn to_proto(version: FileVersion, current_version: i32) -> v1::FileVersion {
    v1::FileVersion {
        version: version.version,
        is_current: version.version == current_version,
        state: file::state_to_proto(project_state(version.content_state, false, false)).into(),
        mime_type: version.mime_type,
        declared_mime_type: version.declared_mime_type,
        size_bytes: file::size_to_proto(version.size_bytes),
        sha256: file::digest_to_proto(version.sha256),
        scan: Some(v1::ScanResult { status: file::scan_status_to_proto(version.scan_status).into() }),
        created_by: version.created_by,
        create_time: Some(time::to_proto(version.create_time)),
        change_description: version.change_description,
        restored_from: version.restored_from,
        state_reason: file::state_reason_to_proto(version.state_reason).into(),
        storage_class: storage_class_to_proto(version.storage_class).into(),
    }
}

const fn storage_class_to_proto(class: StorageClass) -> v1::StorageClass {
    match class {
        StorageClass::Standard => v1::StorageClass::Standard,
        StorageClass::Archive => v1::StorageClass::Archive,
    }
}

pub(in crate::grpc) fn restore_request_from_proto(
    request: v1::RestoreFileVersionRequest,
) -> Result<RestoreRequest, Violations> {
    let change =
        parse_version_change(&request.file_id, request.version, request.if_etag, &request.request_id)?;
    let v1::RestoreFileVersionRequest { version, change_description, .. } = request;
    Ok(RestoreRequest { change, version, change_description })
}

pub(in crate::grpc) fn copy_request_from_proto(
    request: v1::CopyFileRequest,
) -> Result<CopyRequest, Violations> {
    let mut violations = Violations::new();
    let file =
        violations.ok_or_add("file_id", request.file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    if request.version < 0 {
        violations.add("version", "must not be negative; 0 means the current version");
    }
    let v1::CopyFileRequest { version, name, category, .. } = request;
    match file {
        Some(file) => {
            violations.into_result().map(|()| CopyRequest { file, version, name, category, request_id })
        }
        None => Err(violations),
    }
}

/// A request to delete a version of a file.
pub(in crate::grpc) struct DeleteVersionRequest {
    pub(in crate::grpc) change: FileChange,
    /// The number of the version.
    pub(in crate::grpc) version: i32,
}

pub(in crate::grpc) fn delete_request_from_proto(
    request: v1::DeleteFileVersionRequest,
) -> Result<DeleteVersionRequest, Violations> {
    let change =
        parse_version_change(&request.file_id, request.version, request.if_etag, &request.request_id)?;
    Ok(DeleteVersionRequest { change, version: request.version })
}

fn parse_version_change(
    file_id: &str,
    version: i32,
    if_etag: String,
    request_id: &str,
) -> Result<FileChange, Violations> {
    let mut violations = Violations::new();
    let file = violations.ok_or_add("file_id", file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
    let request_id = id::parse_request_id(request_id, &mut violations);
    if version < 1 {
        violations.add("version", "must be a version number, which is at least 1");
    }
    match file {
        Some(file) => violations.into_result().map(|()| FileChange { file, if_etag, request_id }),
        None => Err(violations),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_of_a_version_request_are_reported() {
        let violations = parse_version_change("7", 0, String::new(), "8").unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file_id", "request_id", "version"]);
    }
}
