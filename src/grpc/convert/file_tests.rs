//! Tests of the conversions of files and enums.

use serde_json::json;

use super::*;
use crate::domain::{
    clock::Timestamp,
    digest::Digest,
    file::{ContentState, FileAccess, Trash},
    ids::{FileId, TenantId},
    media_type::MediaKind,
};

/// Returns a file with a value in every field.
pub(in crate::grpc) fn file() -> File {
    let moment = |seconds| Timestamp::from_timestamp(seconds, 5_000).unwrap();
    let id = "0193a7a0-0000-7000-8000-000000000001".parse().unwrap();
    File {
        id: FileId::from_uuid(id),
        tenant_id: TenantId::from_uuid(id),
        owner_id: "alice".into(),
        created_by: "alice".into(),
        updated_by: "bob".into(),
        name: "Übung.pdf".into(),
        original_name: "a.pdf".into(),
        category: "report".into(),
        title: "title".into(),
        description: "description".into(),
        metadata: json!({"a": 1}).as_object().unwrap().clone(),
        tags: vec!["x".into()],
        attachments: vec![EntityRef {
            entity_type: "class".into(),
            entity_id: "7a".into(),
            field: String::new(),
        }],
        visibility: Visibility::Managers,
        version: 3,
        content_state: ContentState::Available,
        scan_status: ScanStatus::NotScanned,
        mime_type: "application/pdf".into(),
        declared_mime_type: "text/plain".into(),
        media_kind: MediaKind::Document,
        size_bytes: 11,
        sha256: Some(Digest::compute(b"hello world")),
        revision: 9,
        create_time: moment(1),
        update_time: moment(2),
        trash: Some(Trash { delete_time: moment(3), purge_time: moment(4) }),
        archive_time: None,
        expire_time: Some(moment(5)),
        deletion_time: Some(moment(6)),
        retain_until_time: None,
        hold: None,
        access: Some(FileAccess { download_count: 3, last_access_time: None }),
        state_reason: None,
    }
}

#[test]
fn full_view_has_fields_that_basic_view_omits() {
    let full = to_full_proto(file());
    assert_eq!((full.name.as_str(), full.etag.as_str(), full.size_bytes), ("Übung.pdf", "3-9", 11));
    assert_eq!(full.state(), v1::FileState::Deleted);
    assert_eq!(full.sha256.as_ref(), Digest::compute(b"hello world").as_bytes());
    assert_eq!(full.purge_time.unwrap().seconds, 4);
    assert_eq!((full.tags.len(), full.attachments.len(), full.metadata.unwrap().fields.len()), (1, 1, 1));
    let basic = to_basic_proto(file());
    assert_eq!(basic.id, full.id);
    assert!(basic.tags.is_empty() && basic.attachments.is_empty() && basic.metadata.is_none());
    assert!(basic.description.is_empty());
    assert_eq!((full.download_count, basic.download_count), (Some(3), None));
}

#[test]
fn enum_names_equal_those_of_the_domain() {
    for value in FileState::ALL {
        assert_eq!(
            state_to_proto(*value).as_str_name(),
            format!("FILE_STATE_{}", value.as_str().to_uppercase())
        );
    }
    for value in Visibility::ALL {
        assert_eq!(
            visibility_to_proto(*value).as_str_name(),
            format!("VISIBILITY_{}", value.as_str().to_uppercase())
        );
    }
    for value in ScanStatus::ALL {
        let name = format!("SCAN_STATUS_{}", value.as_str().to_uppercase());
        assert_eq!(scan_status_to_proto(*value).as_str_name(), name);
    }
}

#[test]
fn duplicate_states_are_dropped_and_unknown_ones_named() {
    let mut violations = Violations::new();
    let read = states_from_proto("filter.states", &[3, 6, 3, 0, 99], &mut violations);
    assert_eq!(read, [FileState::Available, FileState::Deleted]);
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["filter.states[3]", "filter.states[4]"]);
}

#[test]
fn unknown_visibility_is_a_violation() {
    let mut violations = Violations::new();
    assert_eq!(visibility_from_proto("spec.visibility", 0, &mut violations), None);
    assert_eq!(visibility_from_proto("spec.visibility", 2, &mut violations), Some(Visibility::Managers));
    assert!(violations.is_empty());
    visibility_from_proto("spec.visibility", 9, &mut violations);
    assert_eq!(violations.iter().next().unwrap().field, "spec.visibility");
}
