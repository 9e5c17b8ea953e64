//! Convenience methods that use only the methods of the port. They are not part of the port, so that no
//! adapter or decorator repeats or overrides them.

use std::ops::Range;

use bytes::Bytes;
use futures::TryStreamExt;

use super::{ObjectInfo, ObjectStorage, StorageError, StorageErrorKind};
use crate::domain::object_key::ObjectKey;

/// Convenience methods of every [`ObjectStorage`].
pub trait ObjectStorageExt: ObjectStorage {
    /// Reads a range of an object into memory. Use it for short ranges only.
    ///
    /// # Errors
    /// Returns the errors of [`ObjectStorage::get`] and of its stream.
    fn get_bytes(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Bytes, StorageError>> + Send;

    /// Returns the size and the modification time of an object, or `None` if it does not exist.
    ///
    /// # Errors
    /// Returns the errors of [`ObjectStorage::head`], except for `NotFound`.
    fn find_object(
        &self,
        key: &ObjectKey,
    ) -> impl Future<Output = Result<Option<ObjectInfo>, StorageError>> + Send;
}

impl<S: ObjectStorage + ?Sized> ObjectStorageExt for S {
    async fn get_bytes(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StorageError> {
        let mut pieces: Vec<Bytes> = self.get(key, range).await?.try_collect().await?;
        match pieces.len() {
            1 => Ok(pieces.remove(0)),
            _ => Ok(pieces.concat().into()),
        }
    }

    async fn find_object(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>, StorageError> {
        match self.head(key).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{
        PutOptions,
        flaky::{Fault, Flaky, Operation, Plan},
        tests::{key, memory},
    };

    #[tokio::test]
    async fn get_bytes_joins_the_pieces() {
        let (store, key) = (memory(), key());
        let body = vec![Bytes::from_static(b"01234"), Bytes::from_static(b"56789")];
        store.put(&key, body.into(), &PutOptions::default()).await.unwrap();
        for (range, expected) in [(0..10, "0123456789"), (1..4, "123"), (4..6, "45"), (7..7, "")] {
            assert_eq!(store.get_bytes(&key, range).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn find_object_returns_none_only_if_it_is_missing() {
        let unavailable = Fault::Before(StorageErrorKind::Unavailable);
        let store = Flaky::new(memory(), Plan::new().with_fault(Operation::Head, 3, unavailable));
        let key = key();
        assert_eq!(store.find_object(&key).await.unwrap(), None);
        let put = store.put(&key, Bytes::from_static(b"x").into(), &PutOptions::default()).await.unwrap();
        assert_eq!(store.find_object(&key).await.unwrap(), Some(put));
        assert_eq!(store.find_object(&key).await.unwrap_err().kind, StorageErrorKind::Unavailable);
    }
}
