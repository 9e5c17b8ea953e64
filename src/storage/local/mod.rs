//! Stores objects as files in a directory of this machine.
//!
//! ```text
//! <root>/objects/<key>                  complete objects, immutable
//! <root>/objects/<owner marker>         replaced as a whole
//! <root>/multipart/<id>~<key, / as ~>   unfinished writes: multipart uploads, and puts in progress
//! ```
//!
//! - An object is written to `multipart/`, synced, and hard-linked under its key. The link fails if the name
//!   exists, so nothing is overwritten and no lock is needed, not even between processes.
//! - The parts of an upload are written in parallel into one file, each at its offset. Completing it copies
//!   nothing.
//! - A part's receipt contains its CRC. Valid receipts are cached while the process runs; after a restart,
//!   the parts are read again and compared with their receipts.
//! - Empty directories are kept. Metadata is an extended attribute of the file (`metadata.rs`), and dropped by a
//!   file system without them. The content type is dropped.
//! - Blocking calls run on tokio's blocking threads, with as few thread hops as possible: one for a put.

mod blocking;
mod disk;
mod list;
mod marker;
mod metadata;
mod multipart;
mod read;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;

use self::{
    blocking::run_blocking,
    disk::{Disk, UnfinishedId},
    multipart::OpenUploads,
};
use super::{
    BucketProtection, ByteStream, Capabilities, DeletionResults, InitOptions, InitOutcome, InitReport,
    ListPage, MarkerWrite, MultipartId, MultipartInfo, MultipartPage, ObjectInfo, ObjectMetadata,
    ObjectStorage, PartReceipt, Payload, PresignRequest, PresignedUrl, PutOptions, Space, StorageError,
    object::{check_delete_batch, check_part, check_part_size, check_parts},
};
use crate::domain::{checksum::Crc64, clock::IdSource, object_key::ObjectKey};

pub(super) struct Local {
    disk: Arc<Disk>,
    open_uploads: OpenUploads,
    ids: Arc<dyn IdSource>,
}

impl Local {
    /// Creates missing directories. Blocks.
    pub(super) fn open(root: &Path, ids: Arc<dyn IdSource>) -> Result<Self, StorageError> {
        Ok(Self { disk: Arc::new(Disk::open(root)?), open_uploads: OpenUploads::default(), ids })
    }
}

/// Sets the flag when dropped, so that the blocking part of a put can detect that its caller was cancelled.
struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[async_trait]
impl ObjectStorage for Local {
    fn provider(&self) -> &str {
        "local"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_writes: true, presigned_urls: false, storage_classes: false }
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Payload,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let (disk, key, id) = (Arc::clone(&self.disk), key.clone(), UnfinishedId::put(self.ids.uuid()));
        let metadata = options.metadata.clone();
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let _guard = AbandonOnDrop(Arc::clone(&is_abandoned));
        run_blocking("put object", move || disk.put(&key, &id, &body, &metadata, &is_abandoned)).await
    }

    async fn start_multipart(
        &self,
        key: &ObjectKey,
        part_size_bytes: u64,
        options: &PutOptions,
    ) -> Result<MultipartId, StorageError> {
        let operation = "start multipart upload";
        check_part_size(part_size_bytes, operation)?;
        let (disk, key) = (Arc::clone(&self.disk), key.clone());
        let id = UnfinishedId::multipart(self.ids.uuid(), options.layout(part_size_bytes));
        let metadata = options.metadata.clone();
        run_blocking(operation, move || disk.start_multipart(&key, &id, &metadata)).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: Payload,
    ) -> Result<PartReceipt, StorageError> {
        let operation = "put part";
        let upload = UnfinishedId::parse_multipart(id, key, operation)?;
        check_part(number, body.len_bytes(), upload.layout.size_of(number), operation)?;
        let state = self.open_uploads.get(upload);
        // The blocking task holds this lock, so that completion also waits for a part whose caller was
        // cancelled.
        let guard = Arc::clone(&state.lock).read_owned().await;
        let (disk, key) = (Arc::clone(&self.disk), key.clone());
        run_blocking(operation, move || {
            let _guard = guard;
            multipart::put_part(&disk, &key, &upload, &state, number, &body)
        })
        .await
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        from: &ObjectInfo,
    ) -> Result<PartReceipt, StorageError> {
        let operation = "copy part";
        let upload = UnfinishedId::parse_multipart(id, key, operation)?;
        check_part(number, from.size_bytes, upload.layout.size_of(number), operation)?;
        let state = self.open_uploads.get(upload);
        let guard = Arc::clone(&state.lock).read_owned().await;
        let (disk, key, from) = (Arc::clone(&self.disk), key.clone(), from.clone());
        run_blocking(operation, move || {
            let _guard = guard;
            multipart::copy_part(&disk, &key, &upload, &state, number, &from)
        })
        .await
    }

    async fn complete_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        parts: &[PartReceipt],
        _: Option<Crc64>,
    ) -> Result<ObjectInfo, StorageError> {
        let operation = "complete multipart upload";
        let upload = UnfinishedId::parse_multipart(id, key, operation)?;
        let size_bytes = check_parts(parts, operation).map_err(|error| error.with_key(key))?;
        let state = self.open_uploads.get(upload);
        let guard = Arc::clone(&state.lock).write_owned().await;
        let (disk, object, parts) = (Arc::clone(&self.disk), key.clone(), parts.to_vec());
        let info = run_blocking(operation, move || {
            let _guard = guard;
            multipart::complete(&disk, &object, &upload, &state, &parts, size_bytes)
        })
        .await?;
        self.open_uploads.remove(&upload);
        Ok(info)
    }

    async fn abort_multipart(&self, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError> {
        let operation = "abort multipart upload";
        let upload = UnfinishedId::parse(id).ok_or_else(|| disk::invalid_id_error(id, key, operation))?;
        let state = self.open_uploads.get(upload);
        let guard = Arc::clone(&state.lock).write_owned().await;
        let (disk, object) = (Arc::clone(&self.disk), key.clone());
        run_blocking(operation, move || {
            let _guard = guard;
            disk.remove_unfinished(&object, &upload, operation)
        })
        .await?;
        self.open_uploads.remove(&upload);
        Ok(())
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StorageError> {
        let (disk, key) = (Arc::clone(&self.disk), key.clone());
        run_blocking("head object", move || disk.head(&key, "head object")).await
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        read::get(Arc::clone(&self.disk), key.clone(), range).await
    }

    /// Copies the bytes instead of adding a hard link, so that the copy has its own modification time and a
    /// damaged block affects only one object.
    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let (disk, from, to) = (Arc::clone(&self.disk), from.clone(), to.clone());
        let (id, metadata) = (UnfinishedId::put(self.ids.uuid()), options.metadata.clone());
        run_blocking("copy object", move || disk.copy(&from, &to, &id, &metadata)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        let (disk, key) = (Arc::clone(&self.disk), key.clone());
        run_blocking("delete object", move || disk.delete(&key)).await
    }

    async fn delete_batch(&self, keys: &[ObjectKey]) -> Result<DeletionResults, StorageError> {
        check_delete_batch(keys)?;
        let (disk, keys) = (Arc::clone(&self.disk), keys.to_vec());
        run_blocking("delete objects", move || Ok(disk.delete_batch(&keys))).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<ListPage, StorageError> {
        let (disk, prefix, after) = (Arc::clone(&self.disk), prefix.to_owned(), after.cloned());
        run_blocking("list objects", move || list::list_objects(&disk, &prefix, after.as_ref(), limit)).await
    }

    async fn list_multiparts(
        &self,
        prefix: &str,
        after: Option<&MultipartInfo>,
        limit: usize,
    ) -> Result<MultipartPage, StorageError> {
        let (disk, prefix, after) = (Arc::clone(&self.disk), prefix.to_owned(), after.cloned());
        run_blocking("list multipart uploads", move || {
            list::list_unfinished(&disk, &prefix, after.as_ref(), limit)
        })
        .await
    }

    /// The list does not contain parts that another process stored. Their receipts are valid nevertheless.
    async fn list_parts(&self, key: &ObjectKey, id: &MultipartId) -> Result<Vec<PartReceipt>, StorageError> {
        let operation = "list parts";
        let upload = UnfinishedId::parse_multipart(id, key, operation)?;
        let state = self.open_uploads.get(upload);
        let (disk, key) = (Arc::clone(&self.disk), key.clone());
        run_blocking(operation, move || multipart::list_parts(&disk, &key, &upload, &state)).await
    }

    async fn presign(&self, _: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError> {
        Ok(None)
    }

    /// The directories were created when the store was opened, so this only checks them.
    async fn initialize(&self, _: &InitOptions) -> Result<InitReport, StorageError> {
        self.check().await?;
        let subject = format!("directory {}", self.disk.objects.display());
        Ok(InitReport::single_step(subject, InitOutcome::AlreadyExists))
    }

    async fn space(&self) -> Result<Option<Space>, StorageError> {
        let disk = Arc::clone(&self.disk);
        run_blocking("query free space", move || disk.space().map(Some)).await
    }

    async fn check(&self) -> Result<(), StorageError> {
        let (disk, id) = (Arc::clone(&self.disk), self.ids.uuid());
        run_blocking("check store", move || disk.check(id)).await
    }

    async fn read_marker(&self, prefix: &str) -> Result<Option<Bytes>, StorageError> {
        let (disk, prefix) = (Arc::clone(&self.disk), prefix.to_owned());
        run_blocking("read owner marker", move || marker::read(&disk, &prefix)).await
    }

    async fn write_marker(&self, prefix: &str, body: Bytes, write: MarkerWrite) -> Result<(), StorageError> {
        let (disk, prefix, id) = (Arc::clone(&self.disk), prefix.to_owned(), self.ids.uuid());
        run_blocking("write owner marker", move || marker::write(&disk, &prefix, &body, write, id)).await
    }

    async fn read_metadata(&self, key: &ObjectKey) -> Result<ObjectMetadata, StorageError> {
        let (disk, key) = (Arc::clone(&self.disk), key.clone());
        run_blocking("read metadata of object", move || disk.read_metadata(&key)).await
    }

    async fn list_protections(&self) -> Result<Vec<BucketProtection>, StorageError> {
        Ok(Vec::new())
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("disk", &self.disk).finish_non_exhaustive()
    }
}
