//! Objects that are not ours: what imports read from. Nothing is ever written there.
//!
//! They are no [`ObjectStorage`](super::ObjectStorage): their keys are names that others chose, and no tenant stands in them.

use super::{
    Directory, ForeignObject, StorageError,
    directory::Walk,
    s3::{BucketWalk, ForeignBucket},
};

/// A place to import from.
#[derive(Debug, Clone)]
pub enum ForeignStore {
    /// Files below a directory. The key of one is the path to it.
    Directory(Directory),
    /// Objects in a bucket.
    Bucket(ForeignBucket),
}

impl ForeignStore {
    /// Opens the object with this key.
    ///
    /// # Errors
    /// `NotFound` for what is not there or lies outside, which look alike; `InvalidInput` for a key that cannot be asked for.
    pub async fn get(&self, key: &str) -> Result<ForeignObject, StorageError> {
        match self {
            Self::Directory(directory) => directory.get(key).await,
            Self::Bucket(bucket) => bucket.get(key).await,
        }
    }

    /// Walks over the objects whose keys begin with this text.
    pub fn walk(&self, prefix: &str) -> ForeignWalk {
        match self {
            Self::Directory(directory) => ForeignWalk::Directory(directory.walk(prefix)),
            Self::Bucket(bucket) => ForeignWalk::Bucket(bucket.walk(prefix)),
        }
    }
}

/// A walk, in an order that stays the same.
#[derive(Debug)]
pub enum ForeignWalk {
    /// Over a directory.
    Directory(Walk),
    /// Over a bucket.
    Bucket(BucketWalk),
}

impl ForeignWalk {
    /// The next key, until there is none.
    ///
    /// # Errors
    /// When what is left cannot be listed.
    pub async fn next(&mut self) -> Result<Option<String>, StorageError> {
        match self {
            Self::Directory(walk) => walk.next().await,
            Self::Bucket(walk) => walk.next().await,
        }
    }
}
