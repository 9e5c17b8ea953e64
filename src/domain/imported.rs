//! Where an imported file comes from: the object that it was before, and what is kept of its past.

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    digest::Digest,
    text::{self, EXTERNAL_ID_CHARACTERS_MAX},
    violations::Violations,
};

/// The longest key of a foreign object, in bytes; as in S3.
pub const SOURCE_KEY_BYTES_MAX: usize = 1024;
/// The longest id that a file had before, in characters.
pub const LEGACY_ID_CHARACTERS_MAX: usize = 255;

/// The past of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The source's name, a colon, and the key in it; or the URL, without its query, which may hold secrets.
    pub source: String,
    /// Stands for the source: see [`source_digest`].
    pub source_sha256: Digest,
    /// The id that the file had before; may be empty.
    pub legacy_id: String,
    /// Whose file it is.
    pub owner_id: String,
    /// When it was made, where that is known.
    pub create_time: Option<Timestamp>,
}

impl Imported {
    /// Reports all that is wrong with it.
    pub fn check(&self, now: Timestamp, wrong: &mut Violations) {
        wrong.take("item.owner_id", text::line(&self.owner_id, EXTERNAL_ID_CHARACTERS_MAX));
        wrong.take("item.legacy_id", text::optional_line(&self.legacy_id, LEGACY_ID_CHARACTERS_MAX));
        if self.create_time.is_some_and(|time| time > now) {
            wrong.add("item.create_time", "must not lie in the future");
        }
    }
}

/// What stands for an object of before: its source's name and its whole key, or its whole URL, however long.
pub fn source_digest(source: &str, key: &str) -> Digest {
    Digest::of(format!("{source}:{key}").as_bytes())
}
