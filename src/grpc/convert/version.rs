//! Versions of a file.

use super::{file, id, time};
use crate::{
    app::files::{
        FileChange,
        copy::CopyRequest,
        list_versions::{ListVersionsRequest, ListedVersions},
        restore_version::RestoreRequest,
    },
    domain::{
        file::{FileVersion, project},
        ids::FileId,
        storage_class::StorageClass,
        violations::Violations,
    },
    proto::v1,
};

/// Whose versions to list.
pub(in crate::grpc) fn list(request: v1::ListFileVersionsRequest) -> Result<ListVersionsRequest, Violations> {
    let file = id::file_id(&request.file_id)?;
    Ok(ListVersionsRequest { file, page_size: request.page_size, page_token: request.page_token })
}

/// A page of versions.
pub(in crate::grpc) fn listed(listed: ListedVersions) -> v1::ListFileVersionsResponse {
    let ListedVersions { versions, current, next_page_token } = listed;
    let versions = versions.into_iter().map(|version| to_wire(version, current)).collect();
    v1::ListFileVersionsResponse { versions, next_page_token }
}

fn to_wire(version: FileVersion, current: i32) -> v1::FileVersion {
    v1::FileVersion {
        version: version.version,
        is_current: version.version == current,
        state: file::state(project(version.content_state, false, false)).into(),
        mime_type: version.mime_type,
        declared_mime_type: version.declared_mime_type,
        size_bytes: file::size(version.size_bytes),
        sha256: file::sha256(&version.sha256),
        scan: Some(v1::ScanResult { status: file::scan_status(version.scan_status).into() }),
        created_by: version.created_by,
        create_time: Some(time::to_wire(version.create_time)),
        change_description: version.change_description,
        restored_from: version.restored_from,
        state_reason: file::state_reason(version.state_reason).into(),
        storage_class: storage_class(version.storage_class).into(),
    }
}

const fn storage_class(class: StorageClass) -> v1::StorageClass {
    match class {
        StorageClass::Standard => v1::StorageClass::Standard,
        StorageClass::Archive => v1::StorageClass::Archive,
    }
}

/// What to restore.
pub(in crate::grpc) fn restore(request: v1::RestoreFileVersionRequest) -> Result<RestoreRequest, Violations> {
    let change = named(&request.file_id, request.version, request.if_etag, &request.request_id)?;
    let v1::RestoreFileVersionRequest { version, change_description, .. } = request;
    Ok(RestoreRequest { change, version, change_description })
}

/// What to copy.
pub(in crate::grpc) fn copy(request: v1::CopyFileRequest) -> Result<CopyRequest, Violations> {
    let mut wrong = Violations::new();
    let file = wrong.take("file_id", request.file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
    let request_id = id::request_id(&request.request_id, &mut wrong);
    if request.version < 0 {
        wrong.add("version", "must not be negative; 0 means the current one");
    }
    let v1::CopyFileRequest { version, name, category, .. } = request;
    match file {
        Some(file) => wrong.into_result().map(|()| CopyRequest { file, version, name, category, request_id }),
        None => Err(wrong),
    }
}

/// The version to delete, and its file.
pub(in crate::grpc) fn delete(
    request: v1::DeleteFileVersionRequest,
) -> Result<(FileChange, i32), Violations> {
    let change = named(&request.file_id, request.version, request.if_etag, &request.request_id)?;
    Ok((change, request.version))
}

fn named(file_id: &str, version: i32, if_etag: String, request_id: &str) -> Result<FileChange, Violations> {
    let mut wrong = Violations::new();
    let file = wrong.take("file_id", file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
    let request_id = id::request_id(request_id, &mut wrong);
    if version < 1 {
        wrong.add("version", "must be the number of a version, which is at least 1");
    }
    match file {
        Some(file) => wrong.into_result().map(|()| FileChange { file, if_etag, request_id }),
        None => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_its_number_and_its_file() {
        let wrong = named("7", 0, String::new(), "8").unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file_id", "request_id", "version"]);
    }
}
