//! Multipart uploads. Parts are written in parallel into one file. Blocks.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::RwLock;

use super::{
    super::{ObjectInfo, PartReceipt, Payload, StorageError, StorageErrorKind},
    disk::{self, Disk, UnfinishedId, map_io_error},
};
use crate::domain::{
    checksum::{Crc64, Crc64Hasher},
    object_key::ObjectKey,
};

/// Above this number, the state of uploads without active calls is dropped. Their parts are then read again
/// on completion.
const TRACKED_UPLOADS_MAX: usize = 4_096;
/// The buffer size for copying an object into a part.
const COPY_BUFFER_SIZE_BYTES: usize = 1024 * 1024;
/// The buffer size for reading a part to compare it with its receipt.
const VERIFY_BUFFER_SIZE_BYTES: usize = 256 * 1024;

/// The state of open uploads in this process. It is a cache and can be lost at any time.
#[derive(Default)]
pub(super) struct OpenUploads(Mutex<HashMap<UnfinishedId, Arc<UploadState>>>);

#[derive(Default)]
pub(super) struct UploadState {
    /// Held shared while a part is written, and exclusively to complete or abort the upload.
    pub(super) lock: Arc<RwLock<()>>,
    /// Held while the bytes of a part are passed to the kernel. The kernel admits only one writer to a file
    /// at a time, and waiting writers spin: that was 14% of an upload's CPU samples. Parts are synced in
    /// parallel.
    write_lock: Mutex<()>,
    /// The receipt of the last write of each part. The lock of a part serializes its writers.
    parts: Mutex<HashMap<u32, Arc<Mutex<Option<PartReceipt>>>>>,
}

impl OpenUploads {
    pub(super) fn get(&self, id: UnfinishedId) -> Arc<UploadState> {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uploads.len() >= TRACKED_UPLOADS_MAX {
            uploads.retain(|_, state| Arc::strong_count(state) > 1);
        }
        Arc::clone(uploads.entry(id).or_default())
    }

    pub(super) fn remove(&self, id: &UnfinishedId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl UploadState {
    fn part(&self, number: u32) -> Arc<Mutex<Option<PartReceipt>>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(parts.entry(number).or_default())
    }
}

pub(super) fn put_part(
    disk: &Disk,
    key: &ObjectKey,
    id: &UnfinishedId,
    state: &UploadState,
    number: u32,
    body: &Payload,
) -> Result<PartReceipt, StorageError> {
    let write = |file: &File, offset: u64| {
        let write_guard = state.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        disk::write_all_at(file, body, offset)?;
        drop(write_guard);
        Ok(body.crc64nvme())
    };
    write_part(disk, &PartPlace { key, id, number }, state, body.len_bytes(), "put part", write)
}

/// Copies the bytes of an object into a part.
pub(super) fn copy_part(
    disk: &Disk,
    key: &ObjectKey,
    id: &UnfinishedId,
    state: &UploadState,
    number: u32,
    from: &ObjectInfo,
) -> Result<PartReceipt, StorageError> {
    let operation = "copy part";
    let damaged = |error: io::Error| {
        StorageError::new(StorageErrorKind::Damaged, operation).with_key(&from.key).with_source(error)
    };
    let source = File::open(disk.object_path(&from.key)).map_err(damaged)?;
    if source.metadata().map_err(damaged)?.len() != from.size_bytes {
        return Err(damaged(io::Error::other("the source has another size")));
    }
    let write = |file: &File, offset: u64| {
        let (mut hasher, mut buffer) = (Crc64Hasher::default(), vec![0; COPY_BUFFER_SIZE_BYTES]);
        let mut position = 0;
        while position < from.size_bytes {
            let read_bytes = source.read_at(&mut buffer, position)?;
            if read_bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hasher.update(&buffer[..read_bytes]);
            file.write_all_at(&buffer[..read_bytes], offset + position)?;
            position += read_bytes as u64;
        }
        Ok(hasher.finish())
    };
    write_part(disk, &PartPlace { key, id, number }, state, from.size_bytes, operation, write)
}

/// The place of a part.
struct PartPlace<'a> {
    key: &'a ObjectKey,
    id: &'a UnfinishedId,
    number: u32,
}

/// Writes a part with `write`, which gets the file and the offset of the part and returns the checksum.
fn write_part(
    disk: &Disk,
    PartPlace { key, id, number }: &PartPlace<'_>,
    state: &UploadState,
    size_bytes: u64,
    operation: &'static str,
    write: impl FnOnce(&File, u64) -> io::Result<Crc64>,
) -> Result<PartReceipt, StorageError> {
    let part = state.part(*number);
    let mut last_write = part.lock().unwrap_or_else(PoisonError::into_inner);
    *last_write = None;
    let write = || {
        let file = OpenOptions::new().write(true).open(disk.unfinished_path(key, id))?;
        if disk.is_object(&file, key)? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the upload is already complete"));
        }
        let offset = id.layout.offset_of(*number);
        let crc64nvme = write(&file, offset)?;
        // Sync now rather than on completion: a receipt guarantees that the part is durable.
        file.sync_data()?;
        disk::drop_from_page_cache(&file, offset, size_bytes);
        Ok(crc64nvme)
    };
    let crc64nvme = write().map_err(|error| map_io_error(error, operation).with_key(key))?;
    let receipt = PartReceipt { number: *number, size_bytes, etag: crc64nvme.to_string() };
    *last_write = Some(receipt.clone());
    Ok(receipt)
}

/// Lists the parts that this process stored.
pub(super) fn list_parts(
    disk: &Disk,
    key: &ObjectKey,
    id: &UnfinishedId,
    state: &UploadState,
) -> Result<Vec<PartReceipt>, StorageError> {
    let operation = "list parts";
    let at = |error| map_io_error(error, operation).with_key(key);
    let file = File::open(disk.unfinished_path(key, id)).map_err(at)?;
    if disk.is_object(&file, key).map_err(at)? {
        return Err(StorageError::new(StorageErrorKind::NotFound, operation).with_key(key));
    }
    let known: Vec<_> =
        state.parts.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    let receipts = known.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let mut receipts: Vec<PartReceipt> = receipts.flatten().collect();
    receipts.sort_unstable_by_key(|receipt| receipt.number);
    Ok(receipts)
}

pub(super) fn complete(
    disk: &Disk,
    key: &ObjectKey,
    id: &UnfinishedId,
    state: &UploadState,
    parts: &[PartReceipt],
    size_bytes: u64,
) -> Result<ObjectInfo, StorageError> {
    let operation = "complete multipart upload";
    let at = |error| map_io_error(error, operation).with_key(key);
    let path = disk.unfinished_path(key, id);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return find_completed(disk, key, size_bytes);
        }
        opened => opened.map_err(at)?,
    };
    if disk.is_object(&file, key).map_err(at)? {
        // A crash interrupted an earlier completion after the link. The object exists; only the rest is left
        // to do.
        return finish_object(disk, key, id, &file, size_bytes);
    }
    if let [first, _, ..] = parts
        && first.size_bytes != id.layout.part_size_bytes()
    {
        let part_size_bytes = id.layout.part_size_bytes();
        let reason =
            format!("the first part has {} bytes; the part size is {part_size_bytes}", first.size_bytes);
        return Err(StorageError::parts_differ(operation, reason).with_key(key));
    }
    for part in parts {
        if !is_part_stored(&file, id, state, part).map_err(at)? {
            let reason = format!("part {} does not match its receipt", part.number);
            return Err(StorageError::parts_differ(operation, reason).with_key(key));
        }
    }
    // Stored parts that are not in the list are beyond the end.
    file.set_len(size_bytes).and_then(|()| file.sync_all()).map_err(at)?;
    disk.link(&path, key).map_err(at)?;
    finish_object(disk, key, id, &file, size_bytes)
}

fn finish_object(
    disk: &Disk,
    key: &ObjectKey,
    id: &UnfinishedId,
    file: &File,
    size_bytes: u64,
) -> Result<ObjectInfo, StorageError> {
    let operation = "complete multipart upload";
    let metadata = file.metadata().map_err(|error| map_io_error(error, operation).with_key(key))?;
    if metadata.len() != size_bytes {
        let reason =
            format!("the upload was completed with {} bytes; these parts have {size_bytes}", metadata.len());
        return Err(StorageError::invalid_input(operation, reason).with_key(key));
    }
    disk.make_durable(key, operation)?;
    disk.remove_unfinished_or_warn(key, id);
    disk::object_info(key, &metadata, operation)
}

/// Looks for the object of an upload that no longer exists. An object of this size is the result of its
/// completion, because keys are never reused.
fn find_completed(disk: &Disk, key: &ObjectKey, size_bytes: u64) -> Result<ObjectInfo, StorageError> {
    let operation = "complete multipart upload";
    let info = disk.head(key, operation)?;
    if info.size_bytes != size_bytes {
        return Err(StorageError::new(StorageErrorKind::NotFound, operation).with_key(key));
    }
    Ok(info)
}

/// Returns whether the stored part matches its receipt, from the cache or by reading the part.
fn is_part_stored(
    file: &File,
    id: &UnfinishedId,
    state: &UploadState,
    part: &PartReceipt,
) -> io::Result<bool> {
    let known = state.part(part.number).lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(match known {
        Some(known) => known == *part,
        None => part_etag(file, id, part)?.is_some_and(|etag| etag == part.etag),
    })
}

/// Computes the etag of a stored part. Returns `None` if the file ends before the part does.
fn part_etag(file: &File, id: &UnfinishedId, part: &PartReceipt) -> io::Result<Option<String>> {
    let mut hasher = Crc64Hasher::default();
    let mut buffer = vec![0; VERIFY_BUFFER_SIZE_BYTES];
    let mut position = id.layout.offset_of(part.number);
    let end = position + part.size_bytes;
    while position < end {
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
        let read_bytes = file.read_at(&mut buffer[..wanted], position)?;
        if read_bytes == 0 {
            return Ok(None);
        }
        hasher.update(&buffer[..read_bytes]);
        position += read_bytes as u64;
    }
    Ok(Some(hasher.finish().to_string()))
}
