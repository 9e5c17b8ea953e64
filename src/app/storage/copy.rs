//! Copies the bytes of a blob from one store to another and verifies them against its row.

use bytes::Bytes;
use futures::{StreamExt, stream::Fuse};

use super::relocation::{verify_object, with_label_of};
use crate::{
    app::{
        Error,
        owner::delete::{Deletion, delete_from_store},
    },
    db::blobs::Blob,
    domain::{digest::Hasher, object_key::ObjectKey},
    storage::{
        ByteStream, MultipartId, ObjectStorage, PartLayout, PartReceipt, Payload, PutOptions, StorageError,
        StorageErrorKind,
    },
};

/// A copy of a blob to another store.
pub(super) struct BlobCopy<'a> {
    pub(super) blob: &'a Blob,
    pub(super) from: &'a dyn ObjectStorage,
    pub(super) to: &'a dyn ObjectStorage,
    /// The new key, which is unused.
    pub(super) key: &'a ObjectKey,
    /// The label of the original is added.
    pub(super) options: PutOptions,
}

impl BlobCopy<'_> {
    /// Creates the object with the label of the original, and reads it back.
    ///
    /// # Errors
    /// Returns `ObjectDamaged` if the copy does not have the recorded size and SHA-256.
    pub(super) async fn copy_and_verify(self, part_size_bytes: u64) -> Result<(), Error> {
        let (store, key, blob) = (self.to, self.key, self.blob);
        self.copy_with_label(part_size_bytes).await?;
        verify_object(store, key, blob).await
    }

    /// Creates the object with the label of the original.
    ///
    /// # Errors
    /// Returns `ObjectDamaged` if the original does not have the recorded size and SHA-256.
    pub(super) async fn copy_with_label(mut self, part_size_bytes: u64) -> Result<(), Error> {
        self.options = with_label_of(self.from, self.blob, self.options).await?;
        self.copy_bytes(part_size_bytes).await
    }

    /// Creates the object, in one request or in parts of about this size.
    async fn copy_bytes(&self, part_size_bytes: u64) -> Result<(), Error> {
        let bytes = self.from.get(&self.blob.key, 0..self.blob.size_bytes).await?;
        let bytes = bytes.fuse();
        let source = HashedSource { bytes, rest: Bytes::new(), hasher: Hasher::default(), read_bytes: 0 };
        // The number of parts is limited, so very large objects need larger parts.
        let layout = PartLayout::equal_for(self.blob.size_bytes, part_size_bytes);
        let part_size_bytes = layout.part_size_bytes();
        let written_bytes = if self.blob.size_bytes <= part_size_bytes {
            self.put_whole(source).await?
        } else {
            self.put_multipart(source, part_size_bytes).await?
        };
        if written_bytes == self.blob.size_bytes { Ok(()) } else { Err(Error::ObjectDamaged) }
    }

    async fn put_whole(&self, mut source: HashedSource) -> Result<u64, Error> {
        let body = source.read(self.blob.size_bytes).await?;
        source.verify(self.blob).await?;
        Ok(self.to.put(self.key, body, &self.options).await?.size_bytes)
    }

    async fn put_multipart(&self, source: HashedSource, part_size_bytes: u64) -> Result<u64, Error> {
        let id = self.to.start_multipart(self.key, part_size_bytes, &self.options).await?;
        let written = async {
            let receipts = self.put_parts(source, part_size_bytes, &id).await?;
            let crc64nvme = self.blob.hashes.map(|hashes| hashes.crc64nvme);
            let completed = self.to.complete_multipart(self.key, &id, &receipts, crc64nvme).await;
            Ok(completed.map_err(map_copy_error)?.size_bytes)
        };
        let written = written.await;
        if written.is_err()
            && let Err(error) = delete_from_store(self.to, Deletion::Multipart(self.key, &id)).await
        {
            // The object is registered as a stray object that may have a multipart upload, so its deletion
            // aborts the upload.
            tracing::warn!(key = %self.key, %error, "failed to abort multipart upload");
        }
        written
    }

    /// Writes the parts. The upload must be completed only after this, because this verifies the last byte.
    async fn put_parts(
        &self,
        mut source: HashedSource,
        part_size_bytes: u64,
        id: &MultipartId,
    ) -> Result<Vec<PartReceipt>, Error> {
        let mut receipts = Vec::new();
        for number in 1.. {
            let body = source.read(part_size_bytes).await?;
            if body.is_empty() {
                break;
            }
            receipts.push(self.to.put_part(self.key, id, number, body).await.map_err(map_copy_error)?);
        }
        source.verify(self.blob).await?;
        Ok(receipts)
    }
}

/// Maps an error of the multipart upload of a copy. If the store lost it, the original is still intact: the copy can be
/// tried again.
fn map_copy_error(error: StorageError) -> Error {
    match error.kind {
        StorageErrorKind::NotFound => Error::StorageUnavailable(error),
        _ => error.into(),
    }
}

/// The bytes of the original, which are hashed as they are read.
struct HashedSource {
    /// Polled after its end: the last part ends where the object does, and nothing may follow.
    bytes: Fuse<ByteStream>,
    rest: Bytes,
    hasher: Hasher,
    read_bytes: u64,
}

impl HashedSource {
    /// Reads `wanted_bytes` bytes, or fewer at the end.
    async fn read(&mut self, wanted_bytes: u64) -> Result<Payload, Error> {
        let (mut chunks, mut remaining_bytes) = (Vec::new(), wanted_bytes);
        while remaining_bytes > 0 {
            if self.rest.is_empty() {
                match self.bytes.next().await {
                    Some(chunk) => self.rest = chunk?,
                    None => break,
                }
                continue;
            }
            let len = usize::try_from(remaining_bytes).unwrap_or(usize::MAX).min(self.rest.len());
            let chunk = self.rest.split_to(len);
            self.hasher.update(&chunk);
            remaining_bytes -= chunk.len() as u64;
            chunks.push(chunk);
        }
        self.read_bytes += wanted_bytes - remaining_bytes;
        Ok(chunks.into())
    }

    /// Checks that exactly the recorded bytes were read.
    ///
    /// # Errors
    /// Returns `ObjectDamaged` if not.
    async fn verify(mut self, blob: &Blob) -> Result<(), Error> {
        let sha256 = self.hasher.finish();
        let is_recorded = blob.hashes.is_some_and(|recorded| recorded.sha256 == sha256);
        let has_more = !self.rest.is_empty() || self.bytes.next().await.is_some();
        if has_more || self.read_bytes != blob.size_bytes || !is_recorded {
            return Err(Error::ObjectDamaged);
        }
        Ok(())
    }
}
