//! Which files a list asks for, in what order, and where a page ends.

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    digest::{Digest, Hasher},
    file::{EntityRef, FileState, ScanStatus},
    ids::{FileId, TenantId},
};

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SortKey {
    /// The time of creation.
    CreateTime,
    /// The name, bytewise.
    Name,
    /// The size.
    SizeBytes,
}

/// An order: a key and a direction. The file's id breaks ties in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileOrder {
    /// The key.
    pub key: SortKey,
    /// Largest first.
    pub is_descending: bool,
}

/// The order is none of those offered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of: create_time desc, create_time, name, name desc, size_bytes, size_bytes desc")]
pub struct UnknownOrder;

impl FileOrder {
    /// Newest first, the default.
    pub const NEWEST_FIRST: Self = Self { key: SortKey::CreateTime, is_descending: true };

    /// Reads an `order_by` of AIP-132; empty is the default.
    pub fn parse(text: &str) -> Result<Self, UnknownOrder> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (key, is_descending) = match words.as_slice() {
            [] => return Ok(Self::NEWEST_FIRST),
            [key] | [key, "asc"] => (*key, false),
            [key, "desc"] => (*key, true),
            _ => return Err(UnknownOrder),
        };
        let key = match key {
            "create_time" => SortKey::CreateTime,
            "name" => SortKey::Name,
            "size_bytes" => SortKey::SizeBytes,
            _ => return Err(UnknownOrder),
        };
        Ok(Self { key, is_descending })
    }
}

/// Which files; every field that is set must match.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's FileFilter, explained there")]
pub struct FileFilter {
    pub category: Option<String>,
    pub states: Vec<FileState>,
    pub entity: Option<EntityRef>,
    pub tags_all: Vec<String>,
    pub tags_any: Vec<String>,
    pub mime_types: Vec<String>,
    pub owner_id: Option<String>,
    pub create_time_start: Option<Timestamp>,
    pub create_time_end: Option<Timestamp>,
    pub name_prefix: Option<String>,
    pub size_bytes_min: Option<i64>,
    pub size_bytes_max: Option<i64>,
    pub sha256: Option<Digest>,
    pub scan_statuses: Vec<ScanStatus>,
    pub is_deleted_shown: bool,
}

impl FileFilter {
    /// Stands for this filter in a page token.
    pub fn fingerprint(&self) -> Digest {
        let mut hasher = Hasher::default();
        hasher.field(serde_json::json!(self).to_string().as_bytes());
        hasher.finish()
    }
}

/// The value of the sort key at the end of a page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum KeyValue {
    /// Of a list by time.
    Time(Timestamp),
    /// Of a list by name.
    Text(String),
    /// Of a list by size.
    Number(i64),
}

/// Where a page ended: the next one begins behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The sort key there.
    pub key: KeyValue,
    /// The file there.
    pub id: FileId,
}

/// What a page token holds, before it is sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageToken {
    /// Whose list it is.
    pub tenant: TenantId,
    /// Its order.
    pub order: FileOrder,
    /// The fingerprint of its filter.
    pub filter: Digest,
    /// Where the page ended.
    pub after: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offered_orders_are_read_and_others_refused() {
        assert_eq!(FileOrder::parse(""), Ok(FileOrder::NEWEST_FIRST));
        assert_eq!(FileOrder::parse("create_time desc"), Ok(FileOrder::NEWEST_FIRST));
        assert_eq!(FileOrder::parse(" name "), Ok(FileOrder { key: SortKey::Name, is_descending: false }));
        for bad in ["owner_id", "name sideways", "name desc, size_bytes", "name desc x"] {
            assert_eq!(FileOrder::parse(bad), Err(UnknownOrder), "{bad}");
        }
    }

    #[test]
    fn filters_that_differ_have_fingerprints_that_differ() {
        let all = FileFilter::default();
        let images = FileFilter { mime_types: vec!["image/*".into()], ..FileFilter::default() };
        assert_ne!(all.fingerprint(), images.fingerprint());
    }
}
