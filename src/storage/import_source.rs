//! The stores that existing objects are imported from. They are only read.
//!
//! They do not implement [`ObjectStorage`](super::ObjectStorage): their keys are arbitrary names and contain
//! no tenant.

use super::{
    SourceDirectory, SourceObject, StorageError,
    s3::{BucketKeys, SourceBucket},
    source_directory::DirectoryKeys,
    source_entry::SourceEntry,
};

/// A store that existing objects are imported from.
#[derive(Debug, Clone)]
pub enum ImportSource {
    /// The files of a directory. A key is the path relative to the directory.
    Directory(SourceDirectory),
    /// The objects of a bucket.
    Bucket(SourceBucket),
}

impl ImportSource {
    /// Opens the object with this key for reading.
    ///
    /// # Errors
    /// Returns `NotFound` if there is no such object or it is outside the source; the error does not
    /// distinguish the two. Returns `InvalidInput` if the key cannot be sent to the store.
    pub async fn get(&self, key: &str) -> Result<SourceObject, StorageError> {
        match self {
            Self::Directory(directory) => directory.get(key).await,
            Self::Bucket(bucket) => bucket.get(key).await,
        }
    }

    /// Lists the keys that start with a prefix.
    pub fn list_keys(&self, prefix: &str) -> SourceKeys {
        match self {
            Self::Directory(directory) => SourceKeys::Directory(directory.list_keys(prefix)),
            Self::Bucket(bucket) => SourceKeys::Bucket(bucket.list_keys(prefix)),
        }
    }
}

/// The keys of an import source, in a stable order.
#[derive(Debug)]
pub enum SourceKeys {
    /// Keys of a directory.
    Directory(DirectoryKeys),
    /// Keys of a bucket.
    Bucket(BucketKeys),
}

impl SourceKeys {
    /// Returns the next entry, or `None` at the end.
    ///
    /// # Errors
    /// Returns an error if the remaining entries cannot be listed.
    pub async fn next(&mut self) -> Result<Option<SourceEntry>, StorageError> {
        match self {
            Self::Directory(keys) => keys.next().await,
            Self::Bucket(keys) => Ok(keys.next().await?.map(SourceEntry::Key)),
        }
    }
}
