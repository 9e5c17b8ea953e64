//! The file that a committed upload created or added a version to, as its response shows it.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::sql::Damage;
use crate::domain::{
    clock::{TIMESTAMP_MAX, Timestamp},
    event_position::EventPosition,
    file::{EntityRef, FIRST_VERSION, File, FileAccess, LegalHold, VersionContent, Visibility},
    ids::{FileId, TenantId},
    upload_destination::NewFile,
};

/// The values that the commit assigns to a file.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct CommitTimes {
    pub create_time: Timestamp,
    /// When the file is deleted automatically.
    pub deletion_time: Option<Timestamp>,
    /// The position of the file's event.
    #[serde(rename = "event_position")]
    pub event: EventPosition,
}

/// The record of a file that got a new version, at the time of that commit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FileRecord {
    pub version: i32,
    pub revision: i64,
    pub owner_id: String,
    pub created_by: String,
    pub name: String,
    pub original_name: String,
    pub category: String,
    pub title: String,
    pub description: String,
    pub metadata: Map<String, Value>,
    #[serde(deserialize_with = "parse_visibility")]
    pub visibility: Visibility,
    pub create_time: Timestamp,
    pub expire_time: Option<Timestamp>,
    pub deletion_time: Option<Timestamp>,
    pub retain_until_time: Option<Timestamp>,
    hold_time: Option<Timestamp>,
    hold_by: Option<String>,
    hold_reason: Option<String>,
    pub tags: Vec<String>,
    pub attachments: Vec<EntityRef>,
    /// The columns that cannot be read, if there are any.
    #[serde(skip)]
    damage: Option<String>,
}

/// The columns of a [`FileRecord`] that are times.
const TIMES: [&str; 5] = ["create_time", "expire_time", "deletion_time", "retain_until_time", "hold_time"];

impl FileRecord {
    /// Reads a record. Replaces columns that cannot be read as the query of a file does.
    ///
    /// # Errors
    /// Returns an error if a column is missing.
    pub(super) fn read(row: &RawValue) -> Result<Self, serde_json::Error> {
        if let Ok(record) = serde_json::from_str(row.get()) {
            return Ok(record);
        }
        let mut columns: HashMap<String, Box<RawValue>> = serde_json::from_str(row.get())?;
        let mut damage = Damage::default();
        let fallbacks = TIMES.map(|time| (time, to_raw_value(&TIMESTAMP_MAX)));
        for (column, fallback) in fallbacks.into_iter().chain([("metadata", to_raw_value(&Map::new()))]) {
            let Some(value) = columns.get_mut(column) else { continue };
            let read = match column {
                "metadata" => serde_json::from_str::<Map<String, Value>>(value.get()).map(|_| ()),
                _ => serde_json::from_str::<Option<Timestamp>>(value.get()).map(|_| ()),
            };
            if let Err(error) = read {
                if !is_late_time(value) {
                    damage.add(column, error);
                }
                *value = fallback?;
            }
        }
        let record: Self = serde_json::from_str(&serde_json::to_string(&columns)?)?;
        Ok(Self { damage: damage.found(), ..record })
    }
}

/// Returns whether a value is a time after the year 9999, which earlier releases stored. As in other responses, it
/// is shown as the latest time.
fn is_late_time(value: &RawValue) -> bool {
    // The database writes such years without the sign that the parser requires.
    let time = serde_json::from_str::<String>(value.get());
    time.is_ok_and(|time| format!("+{time}").parse::<Timestamp>().is_ok())
}

/// Parses the number that the database writes.
fn parse_visibility<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Visibility, D::Error> {
    let number = i16::deserialize(deserializer)?;
    Visibility::from_number(number).ok_or_else(|| D::Error::custom(format!("unknown visibility {number}")))
}

/// A committed upload.
#[derive(Debug)]
pub struct CommittedContent {
    pub tenant: TenantId,
    pub file: FileId,
    /// The id of the uploader.
    pub created_by: String,
    pub content: VersionContent,
    pub times: CommitTimes,
}

impl CommittedContent {
    /// Returns the file that was created with this record.
    pub fn into_new_file(self, owner_id: String, record: NewFile) -> File {
        let Self { tenant, file, created_by, content, times } = self;
        File {
            id: file,
            tenant_id: tenant,
            owner_id,
            updated_by: created_by.clone(),
            created_by,
            original_name: record.name.clone(),
            name: record.name,
            category: record.category,
            title: record.title,
            description: record.description,
            metadata: record.metadata,
            tags: record.tags,
            attachments: record.attachments,
            visibility: record.visibility,
            version: FIRST_VERSION,
            content_state: content.content_state,
            scan_status: content.scan_status,
            mime_type: content.mime_type,
            declared_mime_type: content.declared_mime_type,
            media_kind: content.media_kind,
            size_bytes: content.size_bytes,
            sha256: content.sha256,
            revision: 1,
            create_time: times.create_time,
            update_time: times.create_time,
            trash: None,
            archive_time: None,
            expire_time: record.expire_time,
            deletion_time: times.deletion_time,
            retain_until_time: record.retain_until_time,
            hold: None,
            access: Some(FileAccess::default()),
            state_reason: None,
        }
    }

    /// Returns the file with this record that got a new version.
    pub fn into_existing_file(self, record: FileRecord) -> File {
        let Self { tenant, file, created_by, content, times } = self;
        let mut file = File {
            id: file,
            tenant_id: tenant,
            owner_id: record.owner_id,
            created_by: record.created_by,
            updated_by: created_by,
            name: record.name,
            original_name: record.original_name,
            category: record.category,
            title: record.title,
            description: record.description,
            metadata: record.metadata,
            tags: record.tags,
            attachments: record.attachments,
            visibility: record.visibility,
            version: record.version,
            content_state: content.content_state,
            scan_status: content.scan_status,
            mime_type: content.mime_type,
            declared_mime_type: content.declared_mime_type,
            media_kind: content.media_kind,
            size_bytes: content.size_bytes,
            sha256: content.sha256,
            revision: record.revision,
            create_time: record.create_time,
            update_time: times.create_time,
            trash: None,
            archive_time: None,
            expire_time: record.expire_time,
            deletion_time: record.deletion_time,
            retain_until_time: record.retain_until_time,
            hold: LegalHold::from_columns(record.hold_time, record.hold_by, record.hold_reason),
            access: Some(FileAccess::default()),
            state_reason: None,
        };
        if let Some(columns) = record.damage {
            file.mark_record_damaged(&columns);
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn damaged_record_is_read_without_its_damaged_columns() {
        let mut row = json!({
            "version": 2, "revision": 3, "owner_id": "alice", "created_by": "alice", "name": "a",
            "original_name": "a", "category": "report", "title": "", "description": "", "metadata": {"n": 1},
            "visibility": Visibility::Owner.number(), "create_time": "2026-01-01T00:00:00Z", "expire_time": null,
            "deletion_time": null, "retain_until_time": null, "hold_time": null, "hold_by": null,
            "hold_reason": null, "tags": ["x"], "attachments": [],
        });
        let read = |text: String| FileRecord::read(&RawValue::from_string(text).unwrap());
        let intact = read(row.to_string()).unwrap();
        assert_eq!((intact.damage.as_deref(), intact.metadata.len()), (None, 1));

        row["expire_time"] = json!("10000-01-01T00:00:00+00:00");
        let late = read(row.to_string()).unwrap();
        assert_eq!((late.damage.as_deref(), late.expire_time), (None, Some(TIMESTAMP_MAX)));

        row["retain_until_time"] = json!("infinity");
        let damaged = read(row.to_string().replace("{\"n\":1}", "{\"n\":1e400}")).unwrap();
        let columns = damaged.damage.unwrap();
        assert!(columns.contains("retain_until_time") && columns.contains("metadata"), "{columns}");
        assert_eq!((damaged.retain_until_time, damaged.metadata), (Some(TIMESTAMP_MAX), Map::new()));
        assert_eq!((damaged.name.as_str(), damaged.tags.len()), ("a", 1));

        row["name"] = Value::Null;
        read(row.to_string()).unwrap_err();
    }
}
