//! The columns of a finished upload, as the commit passes them to the database.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{
    events::EventKind,
    finished_upload::{FinishedDestination, FinishedUpload},
    idempotency_keys::Method,
};
use crate::domain::{
    clock::Timestamp,
    file::{EntityRef, FIRST_VERSION},
    upload_destination::DestinationKind,
};

/// The columns of `app.finished_upload`.
#[derive(Serialize)]
pub(super) struct FinishedUploadRow<'a, A> {
    #[serde(flatten)]
    destination: DestinationColumns<'a>,
    created_by: &'a str,
    audience_min: i16,
    principals: &'a [String],
    change_description: &'a str,
    content_state: i16,
    scan_status: i16,
    mime_type: &'a str,
    declared_mime_type: &'a str,
    media_kind: i16,
    blob_id: Uuid,
    provider: &'a str,
    storage_key: &'a str,
    size_bytes: i64,
    sha256: Option<String>,
    crc64nvme: Option<String>,
    block_checksums: Option<String>,
    actor_kind: i16,
    actor_id: &'a str,
    audit_action: i16,
    audit_call_id: &'a str,
    audit_address: &'a str,
    audit_details: &'a Value,
    lease_id: Option<Uuid>,
    lease_epoch: Option<i32>,
    request_id: Option<Uuid>,
    method: i16,
    payload_sha256: Option<String>,
    response: &'a A,
}

/// The columns that depend on the destination. Those of the other destination are null.
#[derive(Serialize)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant, reason = "most uploads are new files, and a box would allocate for each")]
enum DestinationColumns<'a> {
    NewFile {
        is_version: bool,
        event_kind: i16,
        file_id: Uuid,
        version: i32,
        owner_id: &'a str,
        file_create_time: Option<Timestamp>,
        import_source: Option<&'a str>,
        import_sha256: Option<String>,
        import_legacy_id: Option<&'a str>,
        name: &'a str,
        category: &'a str,
        title: &'a str,
        description: &'a str,
        metadata: &'a serde_json::Map<String, Value>,
        visibility: i16,
        expire_time: Option<Timestamp>,
        retain_until_time: Option<Timestamp>,
        retention_days: Option<i32>,
        tags: &'a [String],
        attachments: &'a [EntityRef],
        readers: &'a [String],
    },
    /// The commit assigns the version number, and reads owner, visibility and readers from the file.
    NewVersion {
        is_version: bool,
        event_kind: i16,
        file_id: Uuid,
        category: &'a str,
        may_write_all: bool,
        if_etag: &'a str,
        version_count_max: u32,
    },
}

impl<'a> From<&'a FinishedDestination> for DestinationColumns<'a> {
    fn from(destination: &'a FinishedDestination) -> Self {
        match destination {
            FinishedDestination::NewFile { id, owner_id, record } => {
                let import_origin = record.import_origin.as_ref();
                Self::NewFile {
                    is_version: DestinationKind::NewFile.is_version(),
                    event_kind: EventKind::FileCreated.number(),
                    file_id: id.as_uuid(),
                    version: FIRST_VERSION,
                    owner_id,
                    file_create_time: import_origin.and_then(|origin| origin.create_time),
                    import_source: import_origin.map(|origin| origin.source.as_str()),
                    import_sha256: import_origin.map(|origin| bytea(&origin.source_sha256)),
                    import_legacy_id: import_origin.map(|origin| origin.legacy_id.as_str()),
                    name: &record.name,
                    category: &record.category,
                    title: &record.title,
                    description: &record.description,
                    metadata: &record.metadata,
                    visibility: record.visibility.number(),
                    expire_time: record.expire_time,
                    retain_until_time: record.retain_until_time,
                    retention_days: record.retention_days.and_then(|days| i32::try_from(days).ok()),
                    tags: &record.tags,
                    attachments: &record.attachments,
                    readers: &record.readers,
                }
            }
            FinishedDestination::NewVersion { version, category, may_write_all, version_count_max } => {
                Self::NewVersion {
                    is_version: DestinationKind::NewVersion.is_version(),
                    event_kind: EventKind::FileVersionCreated.number(),
                    file_id: version.file.as_uuid(),
                    category,
                    may_write_all: *may_write_all,
                    if_etag: &version.if_etag,
                    version_count_max: *version_count_max,
                }
            }
        }
    }
}

impl<'a, A> From<&'a FinishedUpload<'a, A>> for FinishedUploadRow<'a, A> {
    fn from(finished: &'a FinishedUpload<'a, A>) -> Self {
        let FinishedUpload { content, blob, audit, lease, request, .. } = finished;
        Self {
            destination: finished.destination.into(),
            created_by: finished.created_by,
            audience_min: finished.uploader.audience_min(),
            principals: finished.uploader.principals(),
            change_description: finished.change_description,
            content_state: content.content_state.number(),
            scan_status: content.scan_status.number(),
            mime_type: &content.mime_type,
            declared_mime_type: &content.declared_mime_type,
            media_kind: content.media_kind.number(),
            blob_id: blob.id.as_uuid(),
            provider: &blob.provider,
            storage_key: blob.key.as_str(),
            size_bytes: i64::try_from(blob.size_bytes).unwrap_or(i64::MAX),
            sha256: blob.hashes.map(|hashes| bytea(&hashes.sha256)),
            crc64nvme: blob.hashes.map(|hashes| bytea(&hashes.crc64nvme)),
            block_checksums: finished.block_checksums.map(bytea),
            actor_kind: audit.actor.kind.number(),
            actor_id: &audit.actor.id,
            audit_action: audit.action.number(),
            audit_call_id: &audit.origin.call_id,
            audit_address: &audit.origin.address,
            audit_details: &audit.details,
            lease_id: lease.map(|lease| lease.id.as_uuid()),
            lease_epoch: lease.map(|lease| lease.epoch),
            request_id: request.map(|request| request.id.as_uuid()),
            method: Method::UploadFile.number(),
            payload_sha256: request.map(|request| bytea(&request.payload)),
            response: &finished.response,
        }
    }
}

/// Formats bytes in PostgreSQL's hex input format.
fn bytea(hexadecimal: &impl std::fmt::Display) -> String {
    format!("\\x{hexadecimal}")
}
