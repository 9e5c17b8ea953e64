//! Uploads: the spec on its way in, the answer on its way out.

use super::{file, id, quota, structs, time};
use crate::{
    app::uploads::{
        Completion, PartMessage, Warning, WarningCode,
        direct::urls::{DirectPart, DirectUrls},
        upload::Uploaded,
    },
    domain::{
        ids::UploadId,
        upload::{Upload, UploadState},
        upload_spec::UploadSpec,
        violations::Violations,
    },
    proto::v1,
};

/// A spec, unchecked, and what could not be read of it.
///
/// The two go on together, so that the caller hears of everything at once.
pub(in crate::grpc) fn spec(spec: v1::UploadSpec) -> UploadSpec {
    let mut wrong = Violations::new();
    let metadata = spec.metadata.map(|metadata| structs::from_wire("spec.metadata", metadata, &mut wrong));
    let expire_time = time::from_wire("spec.expire_time", spec.expire_time, &mut wrong);
    let retain_until_time = time::from_wire("spec.retain_until_time", spec.retain_until_time, &mut wrong);
    let visibility = file::visibility_from_wire("spec.visibility", spec.visibility, &mut wrong);
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
        attachments: spec.attachments.into_iter().map(file::entity_from_wire).collect(),
        file_id: spec.file_id,
        if_etag: spec.if_etag,
        change_description: spec.change_description,
        expire_time,
        retain_until_time,
        retention_days: spec.retention_days,
        visibility,
        request_id: spec.request_id,
        imported: None,
        unreadable: wrong,
    }
}

/// An upload that can be gone on with.
pub(in crate::grpc) fn upload(upload: Upload, chunk_size_max_bytes: usize) -> v1::Upload {
    let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let state = match upload.state {
        UploadState::Open => v1::UploadState::Pending,
        UploadState::Committed => v1::UploadState::Committed,
        // Nobody is shown these.
        UploadState::Aborted => v1::UploadState::Unspecified,
    };
    v1::Upload {
        id: upload.id.to_string(),
        state: state.into(),
        name: upload.name,
        size_bytes: upload.size_bytes.map(bytes),
        persisted_size_bytes: bytes(upload.persisted_size_bytes),
        part_size_bytes: bytes(upload.part_size_bytes),
        chunk_size_max_bytes: i64::try_from(chunk_size_max_bytes).unwrap_or(i64::MAX),
        created_by: upload.created_by,
        create_time: Some(time::to_wire(upload.create_time)),
        expire_time: Some(time::to_wire(upload.expire_time)),
        file_id: upload.file.map(|file| file.to_string()).unwrap_or_default(),
    }
}

/// A part, and the upload that it belongs to.
pub(in crate::grpc) fn part(request: v1::UploadPartRequest) -> Result<(UploadId, PartMessage), Violations> {
    let id = id::upload_id(&request.upload_id)?;
    let v1::UploadPartRequest { offset, data, crc32c, .. } = request;
    Ok((id, PartMessage { offset, data, crc32c }))
}

/// What is said at the end of an upload.
pub(in crate::grpc) fn completion(request: v1::CompleteUploadRequest) -> Completion {
    let parts = request.parts.into_iter().map(|part| (part.number, part.etag)).collect();
    let sha256 = request.sha256.map(|digest| digest.to_vec());
    Completion { size_bytes: request.size_bytes, sha256, parts }
}

/// Where the bytes of a direct upload go.
pub(in crate::grpc) fn direct(urls: DirectUrls) -> v1::DirectUpload {
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
        expire_time: Some(time::to_wire(urls.expire_time)),
    }
}

/// What a committed upload is answered.
pub(in crate::grpc) fn uploaded(uploaded: Uploaded) -> v1::UploadFileResponse {
    v1::UploadFileResponse {
        file: Some(file::full(uploaded.file)),
        quota_state: Some(quota::state(uploaded.quota)),
        warnings: uploaded.warnings.into_iter().map(warning).collect(),
        event_position: uploaded.event.to_string(),
    }
}

fn warning(warning: Warning) -> v1::Warning {
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
    fn a_spec_is_read_field_by_field() {
        let read = spec(v1::UploadSpec {
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
    fn what_cannot_be_read_of_a_spec_is_named_as_the_caller_wrote_it() {
        let read = spec(v1::UploadSpec {
            visibility: 77,
            expire_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
            ..v1::UploadSpec::default()
        });
        let fields: Vec<&str> = read.unreadable.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["spec.expire_time", "spec.visibility"]);
    }
}
