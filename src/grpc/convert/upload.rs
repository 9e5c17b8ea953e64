//! Conversions of uploads: specs and parts of requests, and the responses.

use super::{file, id, quota, structs, time};
use crate::{
    app::uploads::{
        CommittedUpload, CompletedPart, Completion, PartMessage, Warning, WarningCode,
        direct::urls::{DirectPart, DirectUrls},
    },
    domain::{
        ids::UploadId,
        upload::{Upload, UploadState},
        upload_spec::UploadSpec,
        violations::Violations,
    },
    proto::{codec, v1},
};

/// Converts a spec without checking it. Its `parse_violations` hold the fields that could not be read, so
/// that the caller gets them together with the violations of the later checks.
pub(in crate::grpc) fn spec_from_proto(spec: v1::UploadSpec) -> UploadSpec {
    let mut violations = Violations::new();
    let metadata =
        spec.metadata.map(|metadata| structs::from_proto("spec.metadata", metadata, &mut violations));
    let expire_time = time::from_proto("spec.expire_time", spec.expire_time, &mut violations);
    let retain_until_time =
        time::from_proto("spec.retain_until_time", spec.retain_until_time, &mut violations);
    let visibility = file::visibility_from_proto("spec.visibility", spec.visibility, &mut violations);
    UploadSpec {
        name: spec.name,
        mime_type: spec.mime_type,
        size_bytes: spec.size_bytes,
        sha256: spec.sha256.map(|digest| digest.to_vec()),
        category: spec.category,
        title: spec.title,
        description: spec.description,
        tags: spec.tags,
        metadata: metadata.unwrap_or_default(),
        attachments: spec.attachments.into_iter().map(file::entity_from_proto).collect(),
        file_id: spec.file_id,
        if_etag: spec.if_etag,
        change_description: spec.change_description,
        expire_time,
        retain_until_time,
        retention_days: spec.retention_days,
        visibility,
        request_id: spec.request_id,
        import_origin: None,
        parse_violations: violations,
    }
}

/// Converts an upload. `chunk_size_max_bytes` is the limit for the chunks of its streams.
pub(in crate::grpc) fn to_proto(upload: Upload, chunk_size_max_bytes: usize) -> v1::Upload {
    let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let state = match upload.state {
        UploadState::Open => v1::UploadState::Pending,
        UploadState::Committed => v1::UploadState::Committed,
        // Abandoned uploads are never returned.
        UploadState::Abandoned => v1::UploadState::Unspecified,
    };
    v1::Upload {
        id: upload.id.to_string(),
        state: state.into(),
        name: upload.name.unwrap_or_default(),
        size_bytes: upload.size_bytes.map(bytes),
        persisted_size_bytes: bytes(upload.persisted_size_bytes),
        part_size_bytes: bytes(upload.part_size_bytes),
        chunk_size_max_bytes: i64::try_from(chunk_size_max_bytes).unwrap_or(i64::MAX),
        created_by: upload.created_by,
        create_time: Some(time::to_proto(upload.create_time)),
        expire_time: Some(time::to_proto(upload.expire_time)),
        file_id: upload.file.map(|file| file.to_string()).unwrap_or_default(),
    }
}

/// A request to upload a part.
pub(in crate::grpc) struct PartRequest {
    pub(in crate::grpc) upload: UploadId,
    pub(in crate::grpc) part: PartMessage,
}

pub(in crate::grpc) fn part_request_from_proto(
    request: v1::UploadPartRequest,
) -> Result<PartRequest, Violations> {
    let upload = id::parse_upload_id(&request.upload_id)?;
    let v1::UploadPartRequest { offset, data, crc32c, .. } = request;
    Ok(PartRequest { upload, part: PartMessage { offset, data, crc32c, held: codec::take_space() } })
}

pub(in crate::grpc) fn completion_from_proto(request: v1::CompleteUploadRequest) -> Completion {
    let parts = request
        .parts
        .into_iter()
        .map(|part| CompletedPart { number: part.number, etag: part.etag })
        .collect();
    let sha256 = request.sha256.map(|digest| digest.to_vec());
    Completion { size_bytes: request.size_bytes, sha256, parts }
}

pub(in crate::grpc) fn direct_urls_to_proto(urls: DirectUrls) -> v1::DirectUpload {
    let part = |part: DirectPart| v1::DirectPart {
        number: i32::try_from(part.number).unwrap_or(i32::MAX),
        offset: i64::try_from(part.offset).unwrap_or(i64::MAX),
        size_bytes: i64::try_from(part.size_bytes).unwrap_or(i64::MAX),
        method: part.url.method.to_owned(),
        url: part.url.url.into(),
        headers: part.url.headers.into_iter().collect(),
    };
    v1::DirectUpload {
        parts: urls.parts.into_iter().map(part).collect(),
        expire_time: Some(time::to_proto(urls.expire_time)),
    }
}

pub(in crate::grpc) fn committed_upload_to_proto(upload: CommittedUpload) -> v1::UploadFileResponse {
    v1::UploadFileResponse {
        file: Some(file::to_full_proto(upload.file)),
        quota_state: Some(quota::state_to_proto(upload.quota)),
        warnings: upload.warnings.into_iter().map(warning_to_proto).collect(),
        event_position: upload.event.to_string(),
    }
}

fn warning_to_proto(warning: Warning) -> v1::Warning {
    let code = match warning.code {
        WarningCode::LargeFile => v1::WarningCode::LargeFile,
        WarningCode::QuotaWarning => v1::WarningCode::QuotaWarning,
        WarningCode::QuotaCritical => v1::WarningCode::QuotaCritical,
        WarningCode::TypeCorrected => v1::WarningCode::TypeCorrected,
    };
    v1::Warning { code: code.into(), message: warning.message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::file::Visibility;

    #[test]
    fn spec_fields_are_converted() {
        let read = spec_from_proto(v1::UploadSpec {
            name: "notes.txt".into(),
            size_bytes: Some(5),
            sha256: Some(bytes::Bytes::from_static(&[7; 32])),
            tags: vec!["x".into()],
            attachments: vec![v1::EntityRef { r#type: "class".into(), id: "7a".into(), field: "f".into() }],
            visibility: v1::Visibility::Owner.into(),
            request_id: "r".into(),
            ..v1::UploadSpec::default()
        });
        assert_eq!(
            (read.name.as_str(), read.size_bytes, read.request_id.as_str()),
            ("notes.txt", Some(5), "r")
        );
        assert_eq!(read.sha256, Some(vec![7; 32]));
        assert_eq!(read.attachments[0].entity_type, "class");
        assert_eq!(read.visibility, Some(Visibility::Owner));
    }

    #[test]
    fn unreadable_spec_fields_are_named_by_their_path() {
        let read = spec_from_proto(v1::UploadSpec {
            visibility: 77,
            expire_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
            ..v1::UploadSpec::default()
        });
        let fields: Vec<&str> =
            read.parse_violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["spec.expire_time", "spec.visibility"]);
    }
}
