//! Deletes objects and multipart uploads. No other file calls the methods of the port that delete something
//! (`tests/architecture/deletions.rs`).
//!
//! There is no exception for the parts of an upload of this process: a copy of the database has the rows of
//! uploads that were open when it was made, and with them the keys of the original's uploads.

use crate::{
    domain::object_key::ObjectKey,
    storage::{MultipartId, ObjectStorage, StorageError},
};

/// Something to delete from a store.
#[derive(Debug, Clone, Copy)]
pub(in crate::app) enum Deletion<'a> {
    /// An object. A missing object is a success.
    Object(&'a ObjectKey),
    /// The parts of an incomplete multipart upload. A missing upload is a success.
    Multipart(&'a ObjectKey, &'a MultipartId),
}

/// Deletes an object or the parts of a multipart upload.
///
/// The store is one of the use cases, which `checked` wraps.
///
/// # Errors
/// Returns `Refused` if the store does not belong to this database, or if deletions are disabled or wait.
pub(in crate::app) async fn delete_from_store(
    store: &dyn ObjectStorage,
    deletion: Deletion<'_>,
) -> Result<(), StorageError> {
    match deletion {
        Deletion::Object(key) => store.delete(key).await,
        Deletion::Multipart(key, id) => store.abort_multipart(key, id).await,
    }
}
