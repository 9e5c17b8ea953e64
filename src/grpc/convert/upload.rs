//! Uploads: the spec on its way in, the answer on its way out.

use super::{file, quota, structs, time};
use crate::{
    app::uploads::{Warning, WarningCode, upload::Uploaded},
    domain::{upload_spec::UploadSpec, violations::Violations},
    proto::v1,
};

/// A spec, unchecked, and what could not be read of it.
///
/// The two go on together, so that the caller hears of everything at once.
pub(in crate::grpc) fn spec(spec: v1::UploadSpec) -> UploadSpec {
    let mut wrong = Violations::new();
    let metadata = spec.metadata.map(|metadata| structs::from_wire("spec.metadata", metadata, &mut wrong));
    let expire_time = time::from_wire("spec.expire_time", spec.expire_time, &mut wrong);
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
        expire_time,
        retention_days: spec.retention_days,
        visibility,
        request_id: spec.request_id,
        unreadable: wrong,
    }
}

/// What an upload came to.
pub(in crate::grpc) fn uploaded(uploaded: Uploaded) -> v1::UploadFileResponse {
    v1::UploadFileResponse {
        file: Some(file::full(uploaded.file)),
        quota: Some(quota::state(uploaded.quota)),
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
