//! Reads whole objects, and computes their checksums.

use futures::StreamExt as _;

use crate::{
    domain::{
        object_hasher::{HashedObject, ObjectHasher},
        object_key::ObjectKey,
    },
    media::sniff::{SNIFF_BYTES_MAX, sniff_media_type},
    storage::{ObjectStorage, StorageError},
};

/// An object that was read.
pub(in crate::app) struct ReadObject {
    pub(in crate::app) checksums: HashedObject,
    /// The detected media type.
    pub(in crate::app) sniffed: Option<String>,
}

/// Reads an object of a known size. If the store ends the stream early, the checksums are those of fewer bytes.
///
/// # Errors
/// Returns an error if the object cannot be read.
pub(in crate::app) async fn read_object(
    store: &dyn ObjectStorage,
    key: &ObjectKey,
    size_bytes: u64,
) -> Result<ReadObject, StorageError> {
    let (mut hasher, mut head) = (ObjectHasher::default(), Vec::new());
    let mut bytes = store.get(key, 0..size_bytes).await?;
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk?;
        hasher.update(&chunk);
        let missing = SNIFF_BYTES_MAX - head.len();
        head.extend_from_slice(&chunk[..chunk.len().min(missing)]);
    }
    Ok(ReadObject { checksums: hasher.finish(), sniffed: sniff_media_type(&head) })
}
