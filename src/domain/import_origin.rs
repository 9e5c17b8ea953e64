//! The origin of an imported file: its source object and the properties it had there.

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    digest::Digest,
    text::{self, EXTERNAL_ID_CHARACTERS_MAX},
    violations::Violations,
};

/// The maximum length of a source object's key in bytes, as in S3.
pub const SOURCE_KEY_BYTES_MAX: usize = 1024;
/// The maximum length of a legacy id in characters.
pub const LEGACY_ID_CHARACTERS_MAX: usize = 255;

/// The origin of an imported file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportOrigin {
    /// The source's name, a colon, and the object's key or its URL. The URL has no query, because that may
    /// contain secrets.
    pub source: String,
    /// The digest of the source and the whole key or URL; see [`import_source_digest`].
    pub source_sha256: Digest,
    /// The id that the file had in the previous system; may be empty.
    pub legacy_id: String,
    /// The owner of the file.
    pub owner_id: String,
    /// The creation time of the source object, if known.
    pub create_time: Option<Timestamp>,
}

impl ImportOrigin {
    /// Adds every violation.
    pub fn check(&self, now: Timestamp, violations: &mut Violations) {
        violations.ok_or_add("item.owner_id", text::check_line(&self.owner_id, EXTERNAL_ID_CHARACTERS_MAX));
        violations.ok_or_add(
            "item.legacy_id",
            text::check_optional_line(&self.legacy_id, LEGACY_ID_CHARACTERS_MAX),
        );
        if self.create_time.is_some_and(|time| time > now) {
            violations.add("item.create_time", "must not be in the future");
        }
    }
}

/// Returns the digest that identifies a source object: of its source's name and its whole key or URL, of any
/// length.
pub fn import_source_digest(source: &str, key: &str) -> Digest {
    Digest::compute(format!("{source}:{key}").as_bytes())
}
