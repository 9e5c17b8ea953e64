//! The access log: attempts to read files.

use super::{
    caller::{Actor, Origin},
    clock::Timestamp,
    ids::{FileId, ShareId},
    sql_enum::sql_enum,
    text::is_deceptive,
};

/// The maximum length of a user agent, a purpose and a denial reason, in characters.
pub const TEXT_LENGTH_MAX: usize = 255;

/// The bytes of all fields of an entry that have a limited size, and of the lengths of the others.
const ENTRY_FIXED_BYTES: usize = 192;

sql_enum! {
    /// An attempt to read a file.
    AccessAction {
        /// A visitor presented the token of a share.
        Resolve = 1 => "resolve",
        /// Bytes were requested through a share that permits to view the file only.
        View = 2 => "view",
        /// Bytes were requested.
        Download = 3 => "download",
    }
}

/// The client of an attempt, as far as the request describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientOrigin {
    pub origin: Origin,
    /// The header `user-agent`, shortened to [`TEXT_LENGTH_MAX`] characters.
    pub user_agent: String,
    /// Why the client reads the file, as it declares in the header `access-purpose`. Shortened like the user agent.
    pub purpose: String,
}

/// An attempt to read a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessEntry {
    pub file: FileId,
    /// The version; `None` before it is known.
    pub version: Option<i32>,
    /// The share; `None` for access without one.
    pub share: Option<ShareId>,
    /// The caller; `None` for a visitor.
    pub actor: Option<Actor>,
    pub client: ClientOrigin,
    pub action: AccessAction,
    /// Why the attempt was denied; `None` if it was granted.
    pub denial_reason: Option<String>,
}

/// A stored attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAccess {
    /// The position of the attempt in the log.
    pub position: AccessPosition,
    pub entry: AccessEntry,
}

impl StoredAccess {
    /// Returns the most bytes that the entry takes in a response.
    pub fn bytes_max(&self) -> usize {
        let AccessEntry { actor, client, denial_reason, .. } = &self.entry;
        let actor_bytes = actor.as_ref().map_or(0, |actor| actor.id.len());
        let reason_bytes = denial_reason.as_ref().map_or(0, String::len);
        let origin_bytes = client.origin.call_id.len() + client.origin.address.len();
        ENTRY_FIXED_BYTES
            + actor_bytes
            + reason_bytes
            + origin_bytes
            + client.user_agent.len()
            + client.purpose.len()
    }
}

/// The attempts to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum AccessSubject {
    /// Those with this share.
    Share(ShareId),
    /// Those to read this file.
    File(FileId),
}

/// A position in the access log of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct AccessPosition {
    pub create_time: Timestamp,
    /// Distinguishes attempts of the same time.
    pub n: i64,
}

/// Shortens a text to [`TEXT_LENGTH_MAX`] characters, and replaces characters that are invisible or change the direction
/// of other text.
pub fn shorten_text(text: &str) -> String {
    let visible = |c: char| if is_deceptive(c) { '\u{fffd}' } else { c };
    text.chars().take(TEXT_LENGTH_MAX).map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shortened_by_characters_without_controls() {
        assert_eq!(shorten_text("curl/8\n"), "curl/8\u{fffd}");
        assert_eq!(shorten_text("a\u{202e}b\u{200b}c\u{e0041}"), "a\u{fffd}b\u{fffd}c\u{fffd}");
        let long = shorten_text(&"ä".repeat(300));
        assert_eq!((long.chars().count(), long.len()), (255, 510));
    }
}
