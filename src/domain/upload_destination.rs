//! The destination of an upload: a new file, or a new version of an existing file.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    clock::Timestamp,
    digest::Hasher,
    file::{EntityRef, Visibility},
    ids::FileId,
    import_origin::ImportOrigin,
    media_type::type_for_check,
    policy::{AllowedTypes, Policy},
    violations::Violations,
};

/// The file or version that the bytes of an upload become.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Destination {
    /// A new file.
    NewFile(Box<NewFile>),
    /// A new version of an existing file, whose record is unchanged by the upload.
    NewVersion(NewVersion),
}

/// The record of a file that an upload creates.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewFile {
    pub name: String,
    pub category: String,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub metadata: Map<String, Value>,
    pub attachments: Vec<EntityRef>,
    pub visibility: Visibility,
    /// Principals that may read the file in addition to its owner and its audience.
    pub readers: Vec<String>,
    pub expire_time: Option<Timestamp>,
    pub retain_until_time: Option<Timestamp>,
    pub retention_days: Option<u32>,
    /// The category of the request; empty if it was omitted. The fingerprint uses it instead of the resolved
    /// category, because the policy's defaults may change before a retry.
    pub requested_category: String,
    /// The visibility of the request, if any. The fingerprint uses it for the same reason.
    pub requested_visibility: Option<Visibility>,
    /// The origin of the file, if it is imported.
    pub import_origin: Option<ImportOrigin>,
}

/// A new version of an existing file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewVersion {
    pub file: FileId,
    /// The expected etag of the file. Empty means no check.
    pub if_etag: String,
}

/// The user whose quota an upload uses: the owner of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadOwner {
    /// The owner of a new file.
    User(String),
    /// The owner of the file that gets a new version.
    OwnerOf(FileId),
}

/// The kind of a [`Destination`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationKind {
    /// A new file.
    NewFile,
    /// A new version of an existing file.
    NewVersion,
}

impl Destination {
    /// Returns the kind of this destination.
    pub fn kind(&self) -> DestinationKind {
        match self {
            Self::NewFile(_) => DestinationKind::NewFile,
            Self::NewVersion(_) => DestinationKind::NewVersion,
        }
    }

    /// Adds the fields of the request to a fingerprint.
    pub(super) fn add_to_fingerprint(&self, hasher: &mut Hasher) {
        match self {
            Self::NewFile(file) => {
                hasher.field(b"file");
                for field in [&file.name, &file.requested_category, &file.title, &file.description] {
                    hasher.field(field.as_bytes());
                }
                let rest = serde_json::json!([
                    file.tags,
                    file.metadata,
                    file.attachments,
                    file.expire_time,
                    file.retain_until_time,
                    file.retention_days,
                    file.requested_visibility,
                ]);
                hasher.field(rest.to_string().as_bytes());
            }
            Self::NewVersion(version) => {
                hasher.field(b"version");
                hasher.field(version.file.as_uuid().as_bytes());
                hasher.field(version.if_etag.as_bytes());
            }
        }
    }
}

impl DestinationKind {
    /// Returns the kind from its stored form, the column `is_version`.
    pub fn from_is_version(is_version: bool) -> Self {
        if is_version { Self::NewVersion } else { Self::NewFile }
    }

    /// Returns the stored form.
    pub fn is_version(self) -> bool {
        self == Self::NewVersion
    }

    /// Returns the number of files that the upload adds to the quota.
    pub fn file_count(self) -> i64 {
        match self {
            Self::NewFile => 1,
            Self::NewVersion => 0,
        }
    }
}

impl NewFile {
    /// Returns the rules for the content of the file.
    pub fn content_rules(&self, policy: &Policy) -> ContentRules {
        ContentRules {
            types: policy.allowed_types(&self.category),
            category: self.category.clone(),
            file_name: self.name.clone(),
        }
    }
}

/// The rules for the content of an upload. A new version follows the rules of its file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContentRules {
    /// The category of the file.
    pub category: String,
    /// The types that the category allows.
    pub types: AllowedTypes,
    /// The name of the file, whose extension the type check considers.
    pub file_name: String,
}

impl ContentRules {
    /// Checks that the category allows a type. `sniffed` is the type that was detected in the first bytes, if
    /// any.
    pub fn check_type(&self, mime_type: &str, sniffed: Option<&str>) -> Result<(), Violations> {
        self.types.check(&type_for_check(mime_type, sniffed, &self.file_name))
    }
}
