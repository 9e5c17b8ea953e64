//! Files: the record and its states.

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    digest::Digest,
    ids::{FileId, TenantId},
    media_type::MediaKind,
    sql_enum::sql_enum,
    storage_class::StorageClass,
};

sql_enum! {
    /// The state of a version's content. Deleted and archived are not content states but separate properties
    /// of the file, so that undeleting cannot release a quarantined file.
    ContentState {
        /// Stored, but not verified yet.
        Processing = 1 => "processing",
        /// Verified and readable.
        Available = 2 => "available",
        /// A scanner found malware.
        Quarantined = 3 => "quarantined",
        /// The scanner could not scan it.
        Unscannable = 4 => "unscannable",
        /// Missing or damaged in the store.
        Error = 5 => "error",
    }
}

sql_enum! {
    /// The reason that a version is in state ERROR.
    StateReason {
        /// The object is not in the store.
        ObjectMissing = 1 => "object_missing",
        /// The bytes of the object differ from those that were stored.
        ObjectDamaged = 2 => "object_damaged",
        /// The uploaded bytes differ from the declared ones.
        ChecksumMismatch = 3 => "checksum_mismatch",
        /// The record of the file cannot be read. Never stored: it is found while a row is read.
        RecordDamaged = 4 => "record_damaged",
    }
}

sql_enum! {
    /// The scan status of a version.
    ScanStatus {
        /// It was not scanned.
        NotScanned = 1 => "not_scanned",
        /// A scan is in progress.
        Pending = 2 => "pending",
        /// All bytes were scanned and no malware was found.
        Clean = 3 => "clean",
        /// Malware was found.
        Infected = 4 => "infected",
        /// It could not be scanned.
        Unscannable = 5 => "unscannable",
    }
}

sql_enum! {
    /// Who may see a file, in addition to the tenant's admins.
    Visibility {
        /// Only the owner.
        Owner = 1 => "owner",
        /// The owner and managers.
        Managers = 2 => "managers",
        /// All members of the tenant.
        Organization = 3 => "organization",
        /// All members of the tenant, and anyone through the public URL.
        Public = 4 => "public",
    }
}

sql_enum! {
    /// The state that callers see. It is computed from the content state, the trash and the archive.
    FileState {
        /// Its upload is not finished.
        Pending = 1 => "pending",
        /// Stored, but not verified yet.
        Processing = 2 => "processing",
        /// Verified and readable.
        Available = 3 => "available",
        /// A scanner found malware.
        Quarantined = 4 => "quarantined",
        /// The scanner could not scan it.
        Unscannable = 5 => "unscannable",
        /// In the trash.
        Deleted = 6 => "deleted",
        /// In the archive.
        Archived = 7 => "archived",
        /// Missing or damaged in the store.
        Error = 8 => "error",
    }
}

/// A reference to an external entity that uses a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntityRef {
    /// The type, for example `course` or `class`.
    pub entity_type: String,
    /// The external id of the entity.
    pub entity_id: String,
    /// The field of the entity that uses the file; may be empty.
    pub field: String,
}

/// The record of a file with its current version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    pub id: FileId,
    pub tenant_id: TenantId,
    pub owner_id: String,
    pub created_by: String,
    pub updated_by: String,
    pub name: String,
    pub original_name: String,
    pub category: String,
    pub title: String,
    pub description: String,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub tags: Vec<String>,
    pub attachments: Vec<EntityRef>,
    pub visibility: Visibility,
    pub version: i32,
    pub content_state: ContentState,
    pub scan_status: ScanStatus,
    pub mime_type: String,
    pub declared_mime_type: String,
    pub media_kind: MediaKind,
    pub size_bytes: u64,
    /// `None` until the bytes of a direct upload are verified.
    pub sha256: Option<Digest>,
    /// Incremented with every change of the row. Part of the etag.
    pub revision: i64,
    pub create_time: Timestamp,
    pub update_time: Timestamp,
    /// Present while the file is in the trash.
    pub trash: Option<Trash>,
    pub archive_time: Option<Timestamp>,
    pub expire_time: Option<Timestamp>,
    pub deletion_time: Option<Timestamp>,
    pub retain_until_time: Option<Timestamp>,
    #[serde(default)]
    pub hold: Option<LegalHold>,
    /// Present where the query loads it.
    #[serde(default)]
    pub access: Option<FileAccess>,
    /// Present only in state ERROR.
    #[serde(default)]
    pub state_reason: Option<StateReason>,
}

/// A legal hold. The file cannot be purged until the hold is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegalHold {
    /// When it was set.
    pub time: Timestamp,
    /// The id of the user who set it.
    pub by: String,
    pub reason: String,
}

impl LegalHold {
    /// Creates a hold if all columns are present.
    pub fn from_columns(time: Option<Timestamp>, by: Option<String>, reason: Option<String>) -> Option<Self> {
        Some(Self { time: time?, by: by?, reason: reason? })
    }
}

/// The number of the first version of a file.
pub const FIRST_VERSION: i32 = 1;

/// The content of a version, as recorded with the file and the version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionContent {
    pub content_state: ContentState,
    pub scan_status: ScanStatus,
    pub mime_type: String,
    pub declared_mime_type: String,
    pub media_kind: MediaKind,
    pub size_bytes: u64,
    /// `None` until the bytes of a direct upload are verified.
    pub sha256: Option<Digest>,
}

/// A version of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileVersion {
    pub version: i32,
    pub content_state: ContentState,
    pub scan_status: ScanStatus,
    pub mime_type: String,
    pub declared_mime_type: String,
    pub size_bytes: u64,
    /// `None` until the bytes of a direct upload are verified.
    pub sha256: Option<Digest>,
    pub created_by: String,
    pub create_time: Timestamp,
    pub change_description: String,
    pub restored_from: Option<i32>,
    pub state_reason: Option<StateReason>,
    pub storage_class: StorageClass,
}

/// Download statistics of a file. They lag behind by a few seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAccess {
    pub download_count: u64,
    pub last_access_time: Option<Timestamp>,
}

/// When a file was moved to the trash, and when it will be purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trash {
    pub delete_time: Timestamp,
    pub purge_time: Timestamp,
}

/// The state of a file that prevents an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongState {
    /// The file is in the trash.
    Deleted,
    /// The file is in another state that does not allow the operation.
    State(FileState),
}

impl File {
    /// Returns the state that callers see.
    pub fn state(&self) -> FileState {
        project_state(self.content_state, self.trash.is_some(), self.archive_time.is_some())
    }

    /// Returns the etag: the version number and the revision. It changes with every change of the file.
    pub fn etag(&self) -> String {
        format!("{}-{}", self.version, self.revision)
    }

    /// Puts the file in state ERROR, because these columns of its record cannot be read, and logs its id.
    pub fn mark_record_damaged(&mut self, columns: &str) {
        tracing::error!(tenant = %self.tenant_id, file = %self.id, columns, "failed to read the record of a file");
        self.content_state = ContentState::Error;
        self.state_reason = Some(StateReason::RecordDamaged);
    }

    /// Returns whether parts of the record cannot be read and have been replaced.
    pub fn has_damaged_record(&self) -> bool {
        self.state_reason == Some(StateReason::RecordDamaged)
    }

    /// Returns whether the file is under a legal hold or in retention, so that it cannot be purged.
    pub fn is_protected(&self, now: Timestamp) -> bool {
        self.hold.is_some() || self.retain_until_time.is_some_and(|until| now < until)
    }

    /// Returns whether the file still has the content that it had at this etag. Compares only the version
    /// number; changes of the record do not matter.
    pub fn has_same_content(&self, etag: &str) -> bool {
        let version = etag.split_once('-').filter(|(_, revision)| revision.parse::<i64>().is_ok());
        version.is_some_and(|(version, _)| version == self.version.to_string())
    }

    /// Checks that the bytes may be read. All downloads must use this check, so that no unscanned content is
    /// readable.
    ///
    /// # Errors
    /// Returns the state of the file if it is not available.
    pub fn check_readable(&self) -> Result<(), WrongState> {
        match self.state() {
            FileState::Available => Ok(()),
            FileState::Deleted => Err(WrongState::Deleted),
            state => Err(WrongState::State(state)),
        }
    }
}

/// Computes the state that callers see. Deleted takes precedence over archived, and archived over the content
/// state.
pub fn project_state(content: ContentState, is_deleted: bool, is_archived: bool) -> FileState {
    match (is_deleted, is_archived, content) {
        (true, _, _) => FileState::Deleted,
        (false, true, _) => FileState::Archived,
        (false, false, ContentState::Processing) => FileState::Processing,
        (false, false, ContentState::Available) => FileState::Available,
        (false, false, ContentState::Quarantined) => FileState::Quarantined,
        (false, false, ContentState::Unscannable) => FileState::Unscannable,
        (false, false, ContentState::Error) => FileState::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trash_and_archive_hide_the_available_state() {
        for content in ContentState::ALL {
            for (deleted, archived) in [(false, false), (false, true), (true, false), (true, true)] {
                let is_available = project_state(*content, deleted, archived) == FileState::Available;
                assert_eq!(is_available, *content == ContentState::Available && !deleted && !archived);
            }
        }
    }

    #[test]
    fn state_numbers_round_trip() {
        for state in ContentState::ALL {
            assert_eq!(ContentState::from_number(state.number()), Some(*state));
        }
        assert_eq!(ContentState::from_number(0), None);
    }
}
