//! The data types of the port: objects, multipart uploads, parts and pages.

use std::{fmt, ops::Range};

use super::{DELETE_BATCH_KEYS_MAX, PART_NUMBER_MAX, PART_SIZE_BYTES_MAX, PartLayout, StorageError};
use crate::domain::{clock::Timestamp, ids::TenantId, object_key::ObjectKey, storage_class::StorageClass};

/// User-defined metadata of an object: names of lower-case ASCII letters and hyphens, each with any text.
pub type ObjectMetadata = Vec<(String, String)>;

/// Attributes of a new object. They are for people who inspect the store, and for a restore of the database to an
/// earlier time; the record in the database is authoritative, so an adapter may ignore attributes that its store
/// does not support. They never contain a file name in plain text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// The detected content type.
    pub content_type: Option<String>,
    /// User-defined metadata, such as `tenant-id`. The first entries are the most important ones: a store has a
    /// limit.
    pub metadata: ObjectMetadata,
    /// Whether the parts are uploaded through presigned URLs. Their clients send no checksum for the store to
    /// verify.
    pub has_presigned_parts: bool,
    /// The number of parts of a multipart upload before the first larger one: see [`PartLayout`]. `None` if all parts
    /// have the same size.
    pub equal_parts: Option<u32>,
    /// The storage class. Ignored by stores without storage classes.
    pub class: StorageClass,
}

impl PutOptions {
    /// Creates the options for a blob: metadata with its tenant and, if known, the uploading user.
    pub fn for_blob(tenant: TenantId, user: Option<&str>) -> Self {
        let mut metadata = vec![("tenant-id".to_owned(), tenant.to_string())];
        metadata.extend(user.map(|user| ("user-id".to_owned(), user.to_owned())));
        Self { metadata, ..Self::default() }
    }

    /// Adds metadata before the existing entries.
    #[must_use]
    pub fn with_metadata(self, mut metadata: ObjectMetadata) -> Self {
        metadata.extend(self.metadata);
        Self { metadata, ..self }
    }

    /// Returns the sizes of the parts of a multipart upload.
    pub fn layout(&self, part_size_bytes: u64) -> PartLayout {
        match self.equal_parts {
            Some(equal_parts) => PartLayout::growing(part_size_bytes, equal_parts),
            None => PartLayout::equal(part_size_bytes),
        }
    }

    /// Sets the storage class.
    #[must_use]
    pub fn with_class(self, class: StorageClass) -> Self {
        Self { class, ..self }
    }
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    pub key: ObjectKey,
    pub size_bytes: u64,
    /// Time of the last modification, by the clock of the store.
    pub modify_time: Timestamp,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// The objects in bytewise order of their keys.
    pub objects: Vec<ObjectInfo>,
    /// Whether this is the last page. A page may be short or empty without being the last one. If it is not
    /// the last, continue after its last key.
    pub is_last: bool,
}

/// The store's identifier of an open multipart upload. Opaque; store it and pass it back unchanged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MultipartId(String);

impl MultipartId {
    /// Wraps an id that the store returned.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// Returns the id as text.
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

/// The store's acknowledgement of a part. Required to complete the upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReceipt {
    /// The number of the part, starting at 1.
    pub number: u32,
    /// The size of the part in bytes.
    pub size_bytes: u64,
    /// The store's opaque identifier of the part's content.
    pub etag: String,
}

/// An open multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartInfo {
    /// The key of the object to be created.
    pub key: ObjectKey,
    pub id: MultipartId,
    /// The time at which the upload was started.
    pub start_time: Timestamp,
}

/// One page of open multipart uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartPage {
    /// The uploads in bytewise order of their keys. See "Order" in the [port](super)'s documentation.
    pub multiparts: Vec<MultipartInfo>,
    /// Whether this is the last page.
    pub is_last: bool,
}

/// Checks that the receipts are parts 1, 2, 3 … of one [`PartLayout`], with only the last one shorter. Returns the
/// total size in bytes. Every adapter calls this before it completes an upload.
pub(super) fn check_parts(parts: &[PartReceipt], operation: &'static str) -> Result<u64, StorageError> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return Err(StorageError::parts_differ(
            operation,
            "there are no parts; store an empty object with put",
        ));
    };
    // The store does not know where the parts begin to grow.
    let layout = match parts.iter().find(|part| part.size_bytes > first.size_bytes) {
        Some(larger) => PartLayout::growing(first.size_bytes, larger.number.saturating_sub(1)),
        None => PartLayout::equal(first.size_bytes),
    };
    let mut total_bytes = 0;
    for (part, expected) in parts.iter().zip(1u32..) {
        if part.number != expected {
            return Err(StorageError::parts_differ(operation, format!("part {expected} is missing")));
        }
        let wanted_bytes = layout.size_of(expected);
        let is_whole = part.size_bytes == wanted_bytes;
        if part.size_bytes == 0
            || !(is_whole || (part.number == last.number && part.size_bytes < wanted_bytes))
        {
            let reason = format!("part {expected} has {} bytes instead of {wanted_bytes}", part.size_bytes);
            return Err(StorageError::parts_differ(operation, reason));
        }
        total_bytes += part.size_bytes;
    }
    Ok(total_bytes)
}

/// Checks the part size of a new upload.
pub(super) fn check_part_size(part_size_bytes: u64, operation: &'static str) -> Result<(), StorageError> {
    if (1..=PART_SIZE_BYTES_MAX).contains(&part_size_bytes) {
        return Ok(());
    }
    let reason = format!("part size is {part_size_bytes} bytes; the limits are 1 and {PART_SIZE_BYTES_MAX}");
    Err(StorageError::invalid_input(operation, reason))
}

/// Checks the number and the size of one part against the maximum size.
pub(super) fn check_part(
    number: u32,
    size_bytes: u64,
    size_max_bytes: u64,
    operation: &'static str,
) -> Result<(), StorageError> {
    if !(1..=PART_NUMBER_MAX).contains(&number) {
        return Err(StorageError::invalid_input(
            operation,
            format!("part number is {number}; the limits are 1 and {PART_NUMBER_MAX}"),
        ));
    }
    if !(1..=size_max_bytes).contains(&size_bytes) {
        let reason = format!("part {number} has {size_bytes} bytes; the limits are 1 and {size_max_bytes}");
        return Err(StorageError::invalid_input(operation, reason));
    }
    Ok(())
}

/// Checks the number of keys of a batch deletion.
pub(super) fn check_delete_batch(keys: &[ObjectKey]) -> Result<(), StorageError> {
    if keys.len() <= DELETE_BATCH_KEYS_MAX {
        return Ok(());
    }
    let reason = format!("batch has {} keys; the limit is {DELETE_BATCH_KEYS_MAX}", keys.len());
    Err(StorageError::invalid_input("delete objects", reason))
}

/// Checks that the range lies inside an object of this size.
pub(super) fn check_range(
    range: &Range<u64>,
    size_bytes: u64,
    operation: &'static str,
) -> Result<(), StorageError> {
    if range.start <= range.end && range.end <= size_bytes {
        return Ok(());
    }
    let reason = format!("range is {}..{}; the object has {size_bytes} bytes", range.start, range.end);
    Err(StorageError::invalid_input(operation, reason))
}
