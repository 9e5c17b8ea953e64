//! Conversions of files, and of their states, visibilities, scan statuses and attachments.

use bytes::Bytes;

use super::{structs, time};
use crate::{
    domain::{
        digest::Digest,
        file::{EntityRef, File, FileState, LegalHold, ScanStatus, StateReason, Visibility},
        violations::Violations,
    },
    proto::v1,
};

/// Returns whether a view is FULL. Unspecified means BASIC.
pub(in crate::grpc) fn is_full_view(view: i32, violations: &mut Violations) -> bool {
    let view = violations.ok_or_add("view", v1::FileView::try_from(view).map_err(|_| "is not a known view"));
    view == Some(v1::FileView::Full)
}

/// Returns the conversion for view FULL or BASIC.
pub(in crate::grpc) fn converter_for_view(is_full: bool) -> fn(File) -> v1::File {
    if is_full { to_full_proto } else { to_basic_proto }
}

/// Converts a file to view FULL.
pub(in crate::grpc) fn to_full_proto(mut file: File) -> v1::File {
    let metadata = structs::to_proto(std::mem::take(&mut file.metadata));
    let attachments = std::mem::take(&mut file.attachments).into_iter().map(entity_to_proto).collect();
    let (description, tags) = (std::mem::take(&mut file.description), std::mem::take(&mut file.tags));
    let access = file.access;
    v1::File {
        description,
        tags,
        metadata: Some(metadata),
        attachments,
        download_count: access.map(|access| size_to_proto(access.download_count)),
        last_access_time: access.and_then(|access| access.last_access_time).map(time::to_proto),
        ..to_basic_proto(file)
    }
}

/// Converts a file to view BASIC: without description, metadata, tags, attachments and download counts.
pub(in crate::grpc) fn to_basic_proto(file: File) -> v1::File {
    v1::File {
        state: state_to_proto(file.state()).into(),
        etag: file.etag(),
        id: file.id.to_string(),
        name: file.name,
        original_name: file.original_name,
        mime_type: file.mime_type,
        declared_mime_type: file.declared_mime_type,
        size_bytes: size_to_proto(file.size_bytes),
        sha256: digest_to_proto(file.sha256),
        category: file.category,
        title: file.title,
        description: String::new(),
        tags: Vec::new(),
        metadata: None,
        owner_id: file.owner_id,
        tenant_id: file.tenant_id.to_string(),
        created_by: file.created_by,
        updated_by: file.updated_by,
        visibility: visibility_to_proto(file.visibility).into(),
        version: file.version,
        revision: file.revision,
        retain_until_time: file.retain_until_time.map(time::to_proto),
        legal_hold: file.hold.map(hold_to_proto),
        state_reason: state_reason_to_proto(file.state_reason).into(),
        create_time: Some(time::to_proto(file.create_time)),
        update_time: Some(time::to_proto(file.update_time)),
        delete_time: file.trash.map(|trash| time::to_proto(trash.delete_time)),
        purge_time: file.trash.map(|trash| time::to_proto(trash.purge_time)),
        expire_time: file.expire_time.map(time::to_proto),
        retention_end_time: file.deletion_time.map(time::to_proto),
        attachments: Vec::new(),
        scan: Some(v1::ScanResult { status: scan_status_to_proto(file.scan_status).into() }),
        download_count: None,
        last_access_time: None,
    }
}

fn hold_to_proto(hold: LegalHold) -> v1::LegalHold {
    v1::LegalHold { reason: hold.reason, set_by: hold.by, set_time: Some(time::to_proto(hold.time)) }
}

/// Converts a size, which is signed in messages. No file reaches the limit of the signed type.
pub(in crate::grpc) fn size_to_proto(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(in crate::grpc) const fn state_to_proto(state: FileState) -> v1::FileState {
    match state {
        FileState::Pending => v1::FileState::Pending,
        FileState::Processing => v1::FileState::Processing,
        FileState::Available => v1::FileState::Available,
        FileState::Quarantined => v1::FileState::Quarantined,
        FileState::Unscannable => v1::FileState::Unscannable,
        FileState::Deleted => v1::FileState::Deleted,
        FileState::Archived => v1::FileState::Archived,
        FileState::Error => v1::FileState::Error,
    }
}

/// Converts a digest. It is empty until the bytes are read, as after a direct upload.
pub(in crate::grpc) fn digest_to_proto(digest: Option<Digest>) -> Bytes {
    digest.map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(digest.as_bytes()))
}

pub(in crate::grpc) const fn state_reason_to_proto(reason: Option<StateReason>) -> v1::FileStateReason {
    match reason {
        None => v1::FileStateReason::Unspecified,
        Some(StateReason::ObjectMissing) => v1::FileStateReason::ObjectMissing,
        Some(StateReason::ObjectDamaged) => v1::FileStateReason::ObjectDamaged,
        Some(StateReason::ChecksumMismatch) => v1::FileStateReason::ChecksumMismatch,
        Some(StateReason::RecordDamaged) => v1::FileStateReason::RecordDamaged,
    }
}

pub(super) const fn visibility_to_proto(visibility: Visibility) -> v1::Visibility {
    match visibility {
        Visibility::Owner => v1::Visibility::Owner,
        Visibility::Managers => v1::Visibility::Managers,
        Visibility::Organization => v1::Visibility::Organization,
        Visibility::Public => v1::Visibility::Public,
    }
}

pub(in crate::grpc) const fn scan_status_to_proto(status: ScanStatus) -> v1::ScanStatus {
    match status {
        ScanStatus::NotScanned => v1::ScanStatus::NotScanned,
        ScanStatus::Pending => v1::ScanStatus::Pending,
        ScanStatus::Clean => v1::ScanStatus::Clean,
        ScanStatus::Infected => v1::ScanStatus::Infected,
        ScanStatus::Unscannable => v1::ScanStatus::Unscannable,
    }
}

/// Converts the number of an enum value: finds the value among `all` that `to_proto` converts to this number.
fn enum_from_proto<T: Copy>(
    field: &str,
    number: i32,
    all: &[T],
    to_proto: impl Fn(T) -> i32,
    violations: &mut Violations,
) -> Option<T> {
    let found = all.iter().copied().find(|value| to_proto(*value) == number);
    violations.ok_or_add(field, found.ok_or("is not an accepted value of its enum"))
}

/// Converts the numbers of enum values like [`enum_from_proto`], and omits duplicates.
fn distinct_from_proto<T: Copy + PartialEq>(
    field: &str,
    numbers: &[i32],
    all: &[T],
    to_proto: impl Fn(T) -> i32,
    violations: &mut Violations,
) -> Vec<T> {
    let mut values = Vec::new();
    for (index, number) in numbers.iter().enumerate() {
        match enum_from_proto(&format!("{field}[{index}]"), *number, all, &to_proto, violations) {
            Some(value) if !values.contains(&value) => values.push(value),
            _ => {}
        }
    }
    values
}

pub(in crate::grpc) fn states_from_proto(
    field: &str,
    numbers: &[i32],
    violations: &mut Violations,
) -> Vec<FileState> {
    distinct_from_proto(field, numbers, FileState::ALL, |state| state_to_proto(state).into(), violations)
}

pub(in crate::grpc) fn scan_statuses_from_proto(
    field: &str,
    numbers: &[i32],
    violations: &mut Violations,
) -> Vec<ScanStatus> {
    let to_number = |status| scan_status_to_proto(status).into();
    distinct_from_proto(field, numbers, ScanStatus::ALL, to_number, violations)
}

/// Converts a visibility. Returns `None` if it is unspecified.
pub(in crate::grpc) fn visibility_from_proto(
    field: &str,
    number: i32,
    violations: &mut Violations,
) -> Option<Visibility> {
    if number == i32::from(v1::Visibility::Unspecified) {
        return None;
    }
    enum_from_proto(field, number, Visibility::ALL, |value| visibility_to_proto(value).into(), violations)
}

fn entity_to_proto(entity: EntityRef) -> v1::EntityRef {
    v1::EntityRef { r#type: entity.entity_type, id: entity.entity_id, field: entity.field }
}

/// Converts an entity without checking it.
pub(in crate::grpc) fn entity_from_proto(entity: v1::EntityRef) -> EntityRef {
    EntityRef { entity_type: entity.r#type, entity_id: entity.id, field: entity.field }
}

#[cfg(test)]
#[path = "file_tests.rs"]
pub(in crate::grpc) mod tests;
