//! Files and what belongs to them.

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

/// Whether a view is FULL; unspecified means BASIC.
pub(in crate::grpc) fn is_full(view: i32, wrong: &mut Violations) -> bool {
    let view = wrong.ok_or_add("view", v1::FileView::try_from(view).map_err(|_| "is not a known view"));
    view == Some(v1::FileView::Full)
}

/// How files are shown in a view.
pub(in crate::grpc) fn shown(is_full: bool) -> fn(File) -> v1::File {
    if is_full { full } else { basic }
}

/// A file in view FULL.
pub(in crate::grpc) fn full(mut file: File) -> v1::File {
    let metadata = structs::to_wire(std::mem::take(&mut file.metadata));
    let attachments = std::mem::take(&mut file.attachments).into_iter().map(entity_to_wire).collect();
    let (description, tags) = (std::mem::take(&mut file.description), std::mem::take(&mut file.tags));
    let access = file.access;
    v1::File {
        description,
        tags,
        metadata: Some(metadata),
        attachments,
        download_count: access.map(|access| size(access.download_count)),
        last_access_time: access.and_then(|access| access.last_access_time).map(time::to_wire),
        ..basic(file)
    }
}

/// A file in view BASIC: without description, metadata, tags, attachments and counts.
pub(in crate::grpc) fn basic(file: File) -> v1::File {
    v1::File {
        state: state(file.state()).into(),
        etag: file.etag(),
        id: file.id.to_string(),
        name: file.name,
        original_name: file.original_name,
        mime_type: file.mime_type,
        declared_mime_type: file.declared_mime_type,
        size_bytes: size(file.size_bytes),
        sha256: sha256(&file.sha256),
        category: file.category,
        title: file.title,
        description: String::new(),
        tags: Vec::new(),
        metadata: None,
        owner_id: file.owner_id,
        tenant_id: file.tenant_id.to_string(),
        created_by: file.created_by,
        updated_by: file.updated_by,
        visibility: visibility(file.visibility).into(),
        version: file.version,
        revision: file.revision,
        retain_until_time: file.retain_until_time.map(time::to_wire),
        legal_hold: file.hold.map(hold),
        state_reason: state_reason(file.state_reason).into(),
        create_time: Some(time::to_wire(file.create_time)),
        update_time: Some(time::to_wire(file.update_time)),
        delete_time: file.trash.map(|trash| time::to_wire(trash.delete_time)),
        purge_time: file.trash.map(|trash| time::to_wire(trash.purge_time)),
        expire_time: file.expire_time.map(time::to_wire),
        retention_end_time: file.deletion_time.map(time::to_wire),
        attachments: Vec::new(),
        scan: Some(v1::ScanResult { status: scan_status(file.scan_status).into() }),
        download_count: None,
        last_access_time: None,
    }
}

fn hold(hold: LegalHold) -> v1::LegalHold {
    v1::LegalHold { reason: hold.reason, set_by: hold.by, set_time: Some(time::to_wire(hold.time)) }
}

/// A size on the wire, where it is signed. No file comes near the difference.
pub(in crate::grpc) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A state on the wire.
pub(in crate::grpc) const fn state(state: FileState) -> v1::FileState {
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

/// A digest; empty while nobody has read the bytes.
pub(in crate::grpc) fn sha256(digest: &Digest) -> Bytes {
    digest.if_known().map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(digest.as_bytes()))
}

/// Why a version is in state ERROR.
pub(in crate::grpc) const fn state_reason(reason: Option<StateReason>) -> v1::FileStateReason {
    match reason {
        None => v1::FileStateReason::Unspecified,
        Some(StateReason::ObjectMissing) => v1::FileStateReason::ObjectMissing,
        Some(StateReason::ObjectDamaged) => v1::FileStateReason::ObjectDamaged,
        Some(StateReason::ChecksumMismatch) => v1::FileStateReason::ChecksumMismatch,
    }
}

pub(super) const fn visibility(visibility: Visibility) -> v1::Visibility {
    match visibility {
        Visibility::Owner => v1::Visibility::Owner,
        Visibility::Managers => v1::Visibility::Managers,
        Visibility::Organization => v1::Visibility::Organization,
        Visibility::Public => v1::Visibility::Public,
    }
}

/// A scan status on the wire.
pub(in crate::grpc) const fn scan_status(status: ScanStatus) -> v1::ScanStatus {
    match status {
        ScanStatus::NotScanned => v1::ScanStatus::NotScanned,
        ScanStatus::Pending => v1::ScanStatus::Pending,
        ScanStatus::Clean => v1::ScanStatus::Clean,
        ScanStatus::Infected => v1::ScanStatus::Infected,
        ScanStatus::Unscannable => v1::ScanStatus::Unscannable,
    }
}

/// A value of an enum from the wire: the one among `all` that goes out as this number.
fn from_number<T: Copy>(
    (field, number): (&str, i32),
    all: &[T],
    to_wire: impl Fn(T) -> i32,
    wrong: &mut Violations,
) -> Option<T> {
    let found = all.iter().copied().find(|value| to_wire(*value) == number);
    wrong.ok_or_add(field, found.ok_or("is not a value of its enum that may be sent"))
}

/// States from the wire.
pub(in crate::grpc) fn states(field: &str, numbers: &[i32], wrong: &mut Violations) -> Vec<FileState> {
    each(
        field,
        numbers,
        |at, wrong| from_number(at, FileState::ALL, |value| state(value).into(), wrong),
        wrong,
    )
}

/// Scan statuses from the wire.
pub(in crate::grpc) fn scan_statuses(
    field: &str,
    numbers: &[i32],
    wrong: &mut Violations,
) -> Vec<ScanStatus> {
    let read = |at: (&str, i32), wrong: &mut Violations| {
        from_number(at, ScanStatus::ALL, |value| scan_status(value).into(), wrong)
    };
    each(field, numbers, read, wrong)
}

/// Every value once, however often it was sent.
fn each<T: PartialEq>(
    field: &str,
    numbers: &[i32],
    read: impl Fn((&str, i32), &mut Violations) -> Option<T>,
    wrong: &mut Violations,
) -> Vec<T> {
    let mut values = Vec::new();
    for (index, number) in numbers.iter().enumerate() {
        match read((&format!("{field}[{index}]"), *number), wrong) {
            Some(value) if !values.contains(&value) => values.push(value),
            _ => {}
        }
    }
    values
}

/// A visibility from the wire; unspecified is none.
pub(in crate::grpc) fn visibility_from_wire(
    field: &str,
    number: i32,
    wrong: &mut Violations,
) -> Option<Visibility> {
    if number == i32::from(v1::Visibility::Unspecified) {
        return None;
    }
    from_number((field, number), Visibility::ALL, |value| visibility(value).into(), wrong)
}

fn entity_to_wire(entity: EntityRef) -> v1::EntityRef {
    v1::EntityRef { r#type: entity.entity_type, id: entity.entity_id, field: entity.field }
}

/// An entity from the wire, unchecked.
pub(in crate::grpc) fn entity_from_wire(entity: v1::EntityRef) -> EntityRef {
    EntityRef { entity_type: entity.r#type, entity_id: entity.id, field: entity.field }
}

#[cfg(test)]
#[path = "file_tests.rs"]
pub(in crate::grpc) mod tests;
