//! Parameters of file lists: filter, order, and page positions.

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    digest::{Digest, Hasher},
    file::{EntityRef, FileState, ScanStatus},
    ids::{FileId, TenantId},
};

/// The sort key of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SortKey {
    CreateTime,
    /// The name, in bytewise order.
    Name,
    SizeBytes,
}

/// The order of a list. Files with equal keys are ordered by id, in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileOrder {
    pub key: SortKey,
    pub is_descending: bool,
}

/// The order is not supported.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of: create_time desc, create_time, name, name desc, size_bytes, size_bytes desc")]
pub struct UnknownOrder;

impl FileOrder {
    /// The default order.
    pub const NEWEST_FIRST: Self = Self { key: SortKey::CreateTime, is_descending: true };

    /// Parses an `order_by` field as defined by AIP-132. An empty text selects the default.
    ///
    /// # Errors
    /// Returns [`UnknownOrder`] if the order is not supported.
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

/// The filter of a list. A file must match all fields that are set.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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
    /// Returns a digest that identifies this filter in a page token.
    pub fn fingerprint(&self) -> Digest {
        let mut hasher = Hasher::default();
        hasher.field(serde_json::json!(self).to_string().as_bytes());
        hasher.finish()
    }
}

/// The value of a sort key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum KeyValue {
    Time(Timestamp),
    /// A time that [`Timestamp`] cannot represent, such as `infinity`: the microseconds since the year 2000 that
    /// the database stores.
    StoredTime(i64),
    Text(String),
    Number(i64),
}

/// The position of the last file of a page, after which the next page starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PagePosition {
    pub key: KeyValue,
    pub id: FileId,
}

/// The content of a page token, before it is sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageToken {
    pub tenant: TenantId,
    pub order: FileOrder,
    /// The fingerprint of the filter.
    pub filter: Digest,
    pub after: PagePosition,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_supported_orders_only() {
        assert_eq!(FileOrder::parse(""), Ok(FileOrder::NEWEST_FIRST));
        assert_eq!(FileOrder::parse("create_time desc"), Ok(FileOrder::NEWEST_FIRST));
        assert_eq!(FileOrder::parse(" name "), Ok(FileOrder { key: SortKey::Name, is_descending: false }));
        for bad in ["owner_id", "name sideways", "name desc, size_bytes", "name desc x"] {
            assert_eq!(FileOrder::parse(bad), Err(UnknownOrder), "{bad}");
        }
    }

    #[test]
    fn different_filters_have_different_fingerprints() {
        let all = FileFilter::default();
        let images = FileFilter { mime_types: vec!["image/*".into()], ..FileFilter::default() };
        assert_ne!(all.fingerprint(), images.fingerprint());
    }
}
