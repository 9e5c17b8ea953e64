//! The answers of the store that are XML, as far as we read them.

use serde::{Deserialize, de::DeserializeOwned};

use super::errors::Failure;
use crate::domain::clock::Timestamp;

/// An answer of this shape. An error in its place is a refusal, whatever the status said.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8], what: &'static str) -> Result<T, Failure> {
    if let Some((code, message)) = error(body) {
        return Err(Failure::Refused { status: http::StatusCode::OK, code, message });
    }
    quick_xml::de::from_reader(body).map_err(|_| Failure::Garbled(what))
}

/// Code and message, where the body is an error.
pub(super) fn error(body: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ErrorBody {
        code: String,
        #[serde(default)]
        message: String,
    }
    // Lists may be long: only what begins like an error is read as one.
    let head = std::str::from_utf8(body.get(..body.len().min(200))?).unwrap_or_default();
    if !head.contains("<Error") {
        return None;
    }
    let error: ErrorBody = quick_xml::de::from_reader(body).ok()?;
    Some((error.code, error.message))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Objects {
    #[serde(default)]
    pub(super) is_truncated: bool,
    /// How the keys are written; empty: as they are.
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
pub(super) struct Started {
    pub(super) upload_id: String,
}

/// Of an object, a part or a completed upload that the store made: each has an etag.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Made {
    #[serde(rename = "ETag")]
    pub(super) etag: String,
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

/// Text that stands between tags.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
