//! Stores objects in a bucket of an S3-compatible store.
//!
//! - `client` sends one signed request, and `errors` classifies its failure. There are no retries here: the
//!   decorator above has backoff, jitter and one budget for all operations.
//! - Bodies are sent chunk by chunk as received and are never copied. They are hashed at most once: for the
//!   signature, or as a CRC-64 that the store verifies.
//! - A download is one ranged GET. Its bytes are counted, so an interrupted connection is an error.
//! - If a response leaves the outcome of a completion open, the adapter looks at the object: see `multipart`.
//! - The checksum of a whole object is sent and compared where the store supports it: see `checksum`.
//! - In a bucket that keeps versions, a deletion deletes all versions of the object: see `versions`.

mod batch_deletion;
mod buckets;
mod checksum;
mod client;
mod copy;
mod digest;
mod errors;
mod headers;
mod lifecycle;
mod listing;
mod marker;
mod multipart;
mod objects;
mod options;
mod presign;
mod signature;
mod source_bucket;
#[cfg(test)]
mod tests;
mod versions;
mod xml;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

pub(super) use self::source_bucket::BucketKeys;
use self::{client::Client, copy::SINGLE_COPY_SIZE_BYTES_MAX};
pub use self::{
    options::{Encryption, PayloadSigning, S3Credentials, S3Options},
    source_bucket::SourceBucket,
};
use super::{
    BucketProtection, ByteStream, Capabilities, DeletionResults, InitOptions, InitReport, ListPage,
    MarkerWrite, MultipartId, MultipartInfo, MultipartPage, ObjectInfo, ObjectMetadata, ObjectStorage,
    PartReceipt, Payload, PresignRequest, PresignedUrl, PutOptions, Space, StorageError,
};
use crate::domain::{checksum::Crc64, object_key::ObjectKey};

#[derive(Debug)]
pub(super) struct S3 {
    client: Client,
    single_copy_size_bytes_max: u64,
}

impl S3 {
    /// Creates the adapter without connecting to the store.
    pub(super) fn open(options: &S3Options) -> Result<Self, StorageError> {
        Ok(Self {
            client: Client::open(options.clone())?,
            single_copy_size_bytes_max: SINGLE_COPY_SIZE_BYTES_MAX,
        })
    }
}

#[async_trait]
impl ObjectStorage for S3 {
    fn provider(&self) -> &str {
        "s3"
    }

    fn capabilities(&self) -> Capabilities {
        let options = &self.client.options;
        Capabilities {
            conditional_writes: options.conditional_writes,
            presigned_urls: true,
            storage_classes: options.archive_storage_class.is_some(),
        }
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Payload,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        objects::put(&self.client, key, body, options).await
    }

    async fn start_multipart(
        &self,
        key: &ObjectKey,
        part_size_bytes: u64,
        options: &PutOptions,
    ) -> Result<MultipartId, StorageError> {
        multipart::start(&self.client, key, part_size_bytes, options).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: Payload,
    ) -> Result<PartReceipt, StorageError> {
        multipart::put_part(&self.client, key, id, number, body).await
    }

    async fn complete_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        parts: &[PartReceipt],
        crc64nvme: Option<Crc64>,
    ) -> Result<ObjectInfo, StorageError> {
        multipart::complete(&self.client, key, id, parts, crc64nvme).await
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        from: &ObjectInfo,
    ) -> Result<PartReceipt, StorageError> {
        copy::copy_whole_part(&self.client, key, id, number, from).await
    }

    async fn abort_multipart(&self, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError> {
        multipart::abort(&self.client, key, id).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StorageError> {
        objects::head(&self.client, key, "head object").await
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        objects::get(&self.client, key, range).await
    }

    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        copy::copy(&self.client, from, to, options, self.single_copy_size_bytes_max).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        objects::delete(&self.client, key).await
    }

    async fn delete_batch(&self, keys: &[ObjectKey]) -> Result<DeletionResults, StorageError> {
        batch_deletion::delete_batch(&self.client, keys).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<ListPage, StorageError> {
        listing::list_objects(&self.client, prefix, after, limit).await
    }

    async fn list_multiparts(
        &self,
        prefix: &str,
        after: Option<&MultipartInfo>,
        limit: usize,
    ) -> Result<MultipartPage, StorageError> {
        listing::list_multiparts(&self.client, prefix, after, limit).await
    }

    async fn list_parts(&self, key: &ObjectKey, id: &MultipartId) -> Result<Vec<PartReceipt>, StorageError> {
        multipart::list_parts(&self.client, key, id).await
    }

    async fn presign(&self, request: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError> {
        presign::presign(&self.client, request).await.map(Some)
    }

    async fn initialize(&self, options: &InitOptions) -> Result<InitReport, StorageError> {
        self.client.initialize(options).await
    }

    /// Returns `None`: S3 does not report free space.
    async fn space(&self) -> Result<Option<Space>, StorageError> {
        Ok(None)
    }

    async fn check(&self) -> Result<(), StorageError> {
        self.client.check().await
    }

    async fn read_marker(&self, prefix: &str) -> Result<Option<Bytes>, StorageError> {
        marker::read(&self.client, prefix).await
    }

    async fn write_marker(&self, prefix: &str, body: Bytes, write: MarkerWrite) -> Result<(), StorageError> {
        marker::write(&self.client, prefix, body, write).await
    }

    async fn read_metadata(&self, key: &ObjectKey) -> Result<ObjectMetadata, StorageError> {
        let read =
            objects::head_with(&self.client, key, "read metadata of object", |request| request).await?;
        Ok(headers::parse_metadata(&read.1))
    }

    async fn list_protections(&self) -> Result<Vec<BucketProtection>, StorageError> {
        versions::list_protections(&self.client).await
    }
}
