//! A file: its record, its states, and the moves between them.

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
    /// The state of a version's content. Deleted and archived are not among them: they are overlays on the file, so that
    /// undeleting can never free a quarantined file.
    ContentState {
        /// Stored, being checked.
        Processing = 1 => "processing",
        /// Readable.
        Available = 2 => "available",
        /// A scanner found something.
        Quarantined = 3 => "quarantined",
        /// No scanner could judge it.
        Unscannable = 4 => "unscannable",
        /// Missing or damaged in the store.
        Error = 5 => "error",
    }
}

sql_enum! {
    /// Why a content is in state ERROR.
    StateReason {
        /// Its object is not in the store.
        ObjectMissing = 1 => "object_missing",
        /// Its object is not the bytes that were stored.
        ObjectDamaged = 2 => "object_damaged",
        /// What was uploaded are not the bytes that were declared.
        ChecksumMismatch = 3 => "checksum_mismatch",
    }
}

sql_enum! {
    /// What is known about the scan of a version.
    ScanStatus {
        /// Nothing scanned it.
        NotScanned = 1 => "not_scanned",
        /// A scan is under way.
        Pending = 2 => "pending",
        /// Every byte was read and nothing found.
        Clean = 3 => "clean",
        /// Something was found.
        Infected = 4 => "infected",
        /// It could not be read.
        Unscannable = 5 => "unscannable",
    }
}

sql_enum! {
    /// Who may see a file besides its owner and the tenant's admins.
    Visibility {
        /// The owner only.
        Owner = 1 => "owner",
        /// The owner and managers.
        Managers = 2 => "managers",
        /// Everyone in the tenant.
        Organization = 3 => "organization",
        /// Everyone in the tenant, and the public URL.
        Public = 4 => "public",
    }
}

sql_enum! {
    /// The state that callers see: a projection of content state and overlays.
    FileState {
        /// An upload is open.
        Pending = 1 => "pending",
        /// Being checked.
        Processing = 2 => "processing",
        /// Readable.
        Available = 3 => "available",
        /// Something was found.
        Quarantined = 4 => "quarantined",
        /// Could not be judged.
        Unscannable = 5 => "unscannable",
        /// In the trash.
        Deleted = 6 => "deleted",
        /// Archived.
        Archived = 7 => "archived",
        /// Missing or damaged.
        Error = 8 => "error",
    }
}

/// An entity of the caller's world that uses a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntityRef {
    /// The kind: "course", "class".
    pub entity_type: String,
    /// Its id there.
    pub entity_id: String,
    /// The field, or empty.
    pub field: String,
}

/// The record of a file with its current version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's File, explained there")]
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
    pub sha256: Digest,
    /// Grows with every change of the row; the etag is made of it.
    pub revision: i64,
    pub create_time: Timestamp,
    pub update_time: Timestamp,
    /// Present exactly while the file is in the trash.
    pub trash: Option<Trash>,
    pub archive_time: Option<Timestamp>,
    pub expire_time: Option<Timestamp>,
    pub deletion_time: Option<Timestamp>,
    pub retain_until_time: Option<Timestamp>,
    #[serde(default)]
    pub hold: Option<LegalHold>,
    /// Where it was looked up.
    #[serde(default)]
    pub access: Option<FileAccess>,
    /// Present only in state ERROR.
    #[serde(default)]
    pub state_reason: Option<StateReason>,
}

/// Keeps a file from being purged by anyone until it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegalHold {
    /// Since when.
    pub time: Timestamp,
    /// Who set it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl LegalHold {
    /// A hold, where all of it is there.
    pub fn from_columns(time: Option<Timestamp>, by: Option<String>, reason: Option<String>) -> Option<Self> {
        Some(Self { time: time?, by: by?, reason: reason? })
    }
}

/// A content that a file has, or had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's FileVersion, explained there")]
pub struct FileVersion {
    pub version: i32,
    pub content_state: ContentState,
    pub scan_status: ScanStatus,
    pub mime_type: String,
    pub declared_mime_type: String,
    pub size_bytes: u64,
    pub sha256: Digest,
    pub created_by: String,
    pub create_time: Timestamp,
    pub change_description: String,
    pub restored_from: Option<i32>,
    pub state_reason: Option<StateReason>,
    pub storage_class: StorageClass,
}

/// How often a file was downloaded, and when its bytes were last read. A few seconds behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's File, explained there")]
pub struct FileAccess {
    pub download_count: u64,
    pub last_access_time: Option<Timestamp>,
}

/// When a file was deleted, and when the trash is emptied of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trash {
    /// When it was moved there.
    pub delete_time: Timestamp,
    /// When it will be purged.
    pub purge_time: Timestamp,
}

/// Why something cannot be done with a file now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongState {
    /// It is in the trash.
    Deleted,
    /// Its state does not allow it.
    State(FileState),
}

impl File {
    /// The state that callers see.
    pub fn state(&self) -> FileState {
        project(self.content_state, self.trash.is_some(), self.archive_time.is_some())
    }

    /// Changes whenever the file does: the number of the content, and that of the record.
    pub fn etag(&self) -> String {
        format!("{}-{}", self.version, self.revision)
    }

    /// Whether something says at this time that the file's bytes must be kept, whoever wants them gone.
    pub fn must_be_kept(&self, now: Timestamp) -> bool {
        self.hold.is_some() || self.retain_until_time.is_some_and(|until| now < until)
    }

    /// Whether the content is still that which the file had at this etag. What else changed since does not matter: the number
    /// of a version stands for its bytes alone.
    pub fn has_content_of(&self, etag: &str) -> bool {
        let version = etag.split_once('-').filter(|(_, revision)| revision.parse::<i64>().is_ok());
        version.is_some_and(|(version, _)| version == self.version.to_string())
    }

    /// Whether the bytes may be read: invariant 9 has this one door.
    pub fn readable(&self) -> Result<(), WrongState> {
        match self.state() {
            FileState::Available => Ok(()),
            FileState::Deleted => Err(WrongState::Deleted),
            state => Err(WrongState::State(state)),
        }
    }
}

/// Deleted hides archived, archived hides the content's state.
pub fn project(content: ContentState, is_deleted: bool, is_archived: bool) -> FileState {
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
    fn only_an_available_file_outside_trash_and_archive_projects_as_available() {
        for content in ContentState::ALL {
            for (deleted, archived) in [(false, false), (false, true), (true, false), (true, true)] {
                let is_available = project(*content, deleted, archived) == FileState::Available;
                assert_eq!(is_available, *content == ContentState::Available && !deleted && !archived);
            }
        }
    }

    #[test]
    fn the_numbers_of_states_lead_back_to_them() {
        for state in ContentState::ALL {
            assert_eq!(ContentState::from_number(state.number()), Some(*state));
        }
        assert_eq!(ContentState::from_number(0), None);
    }
}
