//! The XML responses of the store, limited to the fields that are used.

use http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};

use super::errors::Failure;
use crate::domain::clock::Timestamp;

/// Parses a response. An error document is a rejection, even with a success status.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8], what: &'static str) -> Result<T, Failure> {
    if let Some(rejection) = Failure::parse_document(StatusCode::OK, body) {
        return Err(rejection);
    }
    quick_xml::de::from_reader(body).map_err(|_| Failure::InvalidResponse(what))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Objects {
    #[serde(default)]
    pub(super) is_truncated: bool,
    /// The encoding of the keys; empty if they are not encoded.
    #[serde(default)]
    pub(super) encoding_type: String,
    #[serde(default)]
    pub(super) contents: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) last_modified: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Uploads {
    #[serde(default)]
    pub(super) is_truncated: bool,
    #[serde(default)]
    pub(super) next_key_marker: String,
    #[serde(default)]
    pub(super) next_upload_id_marker: String,
    #[serde(default)]
    pub(super) upload: Vec<Upload>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Parts {
    #[serde(default)]
    pub(super) is_truncated: bool,
    #[serde(default)]
    pub(super) next_part_number_marker: Option<u32>,
    #[serde(default)]
    pub(super) part: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Part {
    pub(super) part_number: u32,
    pub(super) size: u64,
    #[serde(rename = "ETag")]
    pub(super) etag: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InitiatedUpload {
    pub(super) upload_id: String,
}

/// The result of a copy, of a part copy or of a completed upload.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EtagResult {
    #[serde(rename = "ETag")]
    pub(super) etag: String,
}

/// The result of a batch deletion.
#[derive(Deserialize)]
pub(super) struct DeleteResult {
    /// One entry for each key.
    #[serde(rename = "$value", default)]
    pub(super) entries: Vec<DeletionEntry>,
}

/// The result of one key of a batch deletion.
#[derive(Deserialize)]
pub(super) enum DeletionEntry {
    #[serde(rename_all = "PascalCase")]
    Deleted {
        key: String,
        /// Whether the deletion only hid the object behind a marker.
        #[serde(default)]
        delete_marker: bool,
    },
    #[serde(rename_all = "PascalCase")]
    Error {
        key: String,
        code: String,
        #[serde(default)]
        message: String,
    },
    /// White space between the elements.
    #[serde(rename = "$text")]
    Text(#[allow(dead_code, reason = "the parser needs a place for the text")] String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct BucketList {
    #[serde(default)]
    pub(super) buckets: Buckets,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Buckets {
    #[serde(default)]
    pub(super) bucket: Vec<Bucket>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Bucket {
    pub(super) name: String,
}

/// The versions of the objects with a prefix. Versions and markers alternate, so all elements are one list.
#[derive(Deserialize)]
pub(super) struct Versions {
    #[serde(rename = "$value", default)]
    pub(super) elements: Vec<VersionsElement>,
}

/// An element of [`Versions`].
#[derive(Deserialize)]
pub(super) enum VersionsElement {
    IsTruncated(bool),
    NextKeyMarker(String),
    NextVersionIdMarker(String),
    Version(Version),
    DeleteMarker(Version),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    pub(super) key: String,
    pub(super) version_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Versioning {
    /// Empty if the bucket never had versions.
    #[serde(default)]
    pub(super) status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ObjectLock {
    #[serde(default)]
    pub(super) object_lock_enabled: String,
}

/// Escapes text for use between XML tags.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
