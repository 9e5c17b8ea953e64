//! The nouns of the port: objects, multipart uploads, parts and the pages that list them.

use std::fmt;

use super::{PART_NUMBER_MAX, PART_SIZE_BYTES_MAX, StorageError};
use crate::domain::{clock::Timestamp, ids::TenantId, object_key::ObjectKey, storage_class::StorageClass};

/// What is said about an object when it is made. Hints for people who look into the store; Strongroom's own
/// record is in the database, so an adapter may drop what its store has no place for. Never the name of a
/// file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// The media type, as sniffed.
    pub content_type: Option<String>,
    /// Pairs such as `tenant-id`.
    pub metadata: Vec<(String, String)>,
    /// The parts of this upload come by presigned URLs, whose holders send no checksum for the store to compare.
    pub has_parts_by_url: bool,
    /// The class of storage that it is kept in. A store that has no other one keeps it as everything.
    pub class: StorageClass,
}

impl PutOptions {
    /// What is said about every blob: whose it is, and who brought it, where that is known.
    pub fn of_blob(tenant: TenantId, user: Option<&str>) -> Self {
        let mut metadata = vec![("tenant-id".to_owned(), tenant.to_string())];
        metadata.extend(user.map(|user| ("user-id".to_owned(), user.to_owned())));
        Self { metadata, ..Self::default() }
    }

    /// The same, in this class.
    #[must_use]
    pub fn in_class(self, class: StorageClass) -> Self {
        Self { class, ..self }
    }
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub key: ObjectKey,
    /// Its size.
    pub size_bytes: u64,
    /// When it became what it is, by the store's clock.
    pub modify_time: Timestamp,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// In bytewise order of their keys.
    pub objects: Vec<ObjectInfo>,
    /// Nothing follows. A page may be short, even empty, without being the last only if the store says so; go
    /// on from the last key while this is false.
    pub is_last: bool,
}

/// The store's name for an open multipart upload: opaque, to be kept and given back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MultipartId(String);

impl MultipartId {
    /// Wraps an id that came from a store, directly or through the database.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The text to keep.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MultipartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MultipartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MultipartId({})", self.0)
    }
}

/// The store's word that it has a part. Keep it until the upload is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReceipt {
    /// Which part, from 1.
    pub number: u32,
    /// How many bytes the part has.
    pub size_bytes: u64,
    /// The store's mark for these very bytes; opaque.
    pub etag: String,
}

/// An open multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartInfo {
    /// The object that it would become.
    pub key: ObjectKey,
    /// Its name.
    pub id: MultipartId,
    /// When it was started.
    pub start_time: Timestamp,
}

/// One page of open multipart uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartPage {
    /// In bytewise order of their keys, then of their ids.
    pub multiparts: Vec<MultipartInfo>,
    /// Nothing follows.
    pub is_last: bool,
}

/// Checks that the receipts are parts 1, 2, 3 … of equal size, only the last of which may be shorter, and
/// tells the size of the whole. Every adapter asks this before it asks its store.
pub(super) fn check_parts(parts: &[PartReceipt], operation: &'static str) -> Result<u64, StorageError> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return Err(StorageError::invalid(
            operation,
            "there is no part; an empty object is put in one piece",
        ));
    };
    let mut total_bytes = 0;
    for (part, expected) in parts.iter().zip(1u32..) {
        if part.number != expected {
            return Err(StorageError::invalid(operation, format!("part {expected} is missing")));
        }
        let is_equal = part.size_bytes == first.size_bytes;
        if part.size_bytes == 0
            || !(is_equal || (part.number == last.number && part.size_bytes < first.size_bytes))
        {
            let reason =
                format!("part {expected} has {} bytes, the first {}", part.size_bytes, first.size_bytes);
            return Err(StorageError::invalid(operation, reason));
        }
        total_bytes += part.size_bytes;
    }
    Ok(total_bytes)
}

/// Checks the size of the parts of a new upload.
pub(super) fn check_part_size(part_size_bytes: u64, operation: &'static str) -> Result<(), StorageError> {
    if (1..=PART_SIZE_BYTES_MAX).contains(&part_size_bytes) {
        return Ok(());
    }
    let reason = format!("a part of {part_size_bytes} bytes; 1 to {PART_SIZE_BYTES_MAX} are possible");
    Err(StorageError::invalid(operation, reason))
}

/// Checks one part against the size that the upload was started with.
pub(super) fn check_part(
    number: u32,
    size_bytes: u64,
    part_size_bytes: u64,
    operation: &'static str,
) -> Result<(), StorageError> {
    if !(1..=PART_NUMBER_MAX).contains(&number) {
        return Err(StorageError::invalid(
            operation,
            format!("part {number}; 1 to {PART_NUMBER_MAX} are possible"),
        ));
    }
    if !(1..=part_size_bytes).contains(&size_bytes) {
        let reason = format!("part {number} has {size_bytes} bytes; 1 to {part_size_bytes} are possible");
        return Err(StorageError::invalid(operation, reason));
    }
    Ok(())
}
