//! The maximum size of files.

use serde::{Deserialize, Serialize};

use super::media_type::MediaKind;

/// The maximum file size per media kind, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSizeLimits {
    pub image: i64,
    pub video: i64,
    pub audio: i64,
    pub document: i64,
    pub other: i64,
}

impl FileSizeLimits {
    /// Limits that allow files of any size.
    pub const NONE: Self =
        Self { image: i64::MAX, video: i64::MAX, audio: i64::MAX, document: i64::MAX, other: i64::MAX };

    /// Returns the limit for a media kind.
    pub fn for_kind(&self, kind: MediaKind) -> i64 {
        match kind {
            MediaKind::Image => self.image,
            MediaKind::Video => self.video,
            MediaKind::Audio => self.audio,
            MediaKind::Document => self.document,
            MediaKind::Other => self.other,
        }
    }

    /// Returns the largest limit, which applies to files whose media kind is not known yet.
    pub fn largest(&self) -> i64 {
        MediaKind::ALL.iter().map(|kind| self.for_kind(*kind)).max().unwrap_or_default()
    }
}
