//! Parts, written side by side into one file. Blocks.

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
    disk::{self, Disk, UnfinishedId, failed},
};
use crate::domain::{checksum::Crc64Hasher, object_key::ObjectKey};

/// Beyond this, what nobody uses right now is forgotten. Forgetting costs one more reading when completing.
const OPEN_UPLOADS_REMEMBERED_MAX: usize = 4_096;
/// How much of a part is read at once when it is compared with its receipt.
const VERIFY_BUFFER_SIZE_BYTES: usize = 256 * 1024;

/// What this process knows about open uploads. A cache: losing it loses nothing.
#[derive(Default)]
pub(super) struct OpenUploads(Mutex<HashMap<UnfinishedId, Arc<UploadState>>>);

#[derive(Default)]
pub(super) struct UploadState {
    /// Shared by the parts being written, alone for completing and aborting.
    pub(super) lock: Arc<RwLock<()>>,
    /// Held while a part's bytes are handed to the kernel. It lets only one writer into a file at a time anyway, and those
    /// that wait inside it spin: 14 % of an upload's samples. Syncing goes on side by side.
    turn: Mutex<()>,
    /// The last write of each part. Its own lock makes writers of one part take turns.
    parts: Mutex<HashMap<u32, Arc<Mutex<Option<PartReceipt>>>>>,
}

impl OpenUploads {
    pub(super) fn get(&self, id: UnfinishedId) -> Arc<UploadState> {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uploads.len() >= OPEN_UPLOADS_REMEMBERED_MAX {
            uploads.retain(|_, state| Arc::strong_count(state) > 1);
        }
        Arc::clone(uploads.entry(id).or_default())
    }

    pub(super) fn forget(&self, id: &UnfinishedId) {
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
    let operation = "put part";
    let part = state.part(number);
    let mut last_write = part.lock().unwrap_or_else(PoisonError::into_inner);
    *last_write = None;
    let write = || {
        let file = OpenOptions::new().write(true).open(disk.unfinished_path(key, id))?;
        if disk.is_object(&file, key)? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the upload is complete"));
        }
        let turn = state.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = u64::from(number - 1) * id.part_size_bytes;
        disk::write_all_at(&file, body, offset)?;
        drop(turn);
        // Now, not when completing: a receipt promises that the part survives.
        file.sync_data()?;
        disk::leave_cache(&file, offset, body.len_bytes());
        Ok(())
    };
    write().map_err(|error| failed(error, operation).with_key(key))?;
    let etag = body.crc64nvme().to_string();
    let receipt = PartReceipt { number, size_bytes: body.len_bytes(), etag };
    *last_write = Some(receipt.clone());
    Ok(receipt)
}

/// What this process knows of the upload.
pub(super) fn list_parts(
    disk: &Disk,
    key: &ObjectKey,
    id: &UnfinishedId,
    state: &UploadState,
) -> Result<Vec<PartReceipt>, StorageError> {
    let operation = "list parts";
    let at = |error| failed(error, operation).with_key(key);
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
    let at = |error| failed(error, operation).with_key(key);
    let path = disk.unfinished_path(key, id);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return completed(disk, key, size_bytes),
        opened => opened.map_err(at)?,
    };
    if disk.is_object(&file, key).map_err(at)? {
        // A crash came between the link and the end: the object is there, and only the rest is still to do.
        return finish(disk, key, id, &file, size_bytes);
    }
    if parts.len() > 1 && parts.first().is_some_and(|part| part.size_bytes != id.part_size_bytes) {
        return Err(StorageError::invalid(operation, "the first part is too short").with_key(key));
    }
    for part in parts {
        verify(&file, id, state, part).map_err(at)?;
    }
    // Parts that were put but are not named lie behind the end.
    file.set_len(size_bytes).and_then(|()| file.sync_all()).map_err(at)?;
    disk.link(&path, key).map_err(at)?;
    finish(disk, key, id, &file, size_bytes)
}

fn finish(
    disk: &Disk,
    key: &ObjectKey,
    id: &UnfinishedId,
    file: &File,
    size_bytes: u64,
) -> Result<ObjectInfo, StorageError> {
    let operation = "complete multipart upload";
    let metadata = file.metadata().map_err(|error| failed(error, operation).with_key(key))?;
    if metadata.len() != size_bytes {
        return Err(StorageError::invalid(operation, "completed before, with other parts").with_key(key));
    }
    disk.make_durable(key, operation)?;
    disk.tidy(key, id);
    disk::info(key, &metadata, operation)
}

/// There is no such upload. If it was completed, the object has its size: keys are minted once.
fn completed(disk: &Disk, key: &ObjectKey, size_bytes: u64) -> Result<ObjectInfo, StorageError> {
    let operation = "complete multipart upload";
    let info = disk.head(key, operation)?;
    if info.size_bytes != size_bytes {
        return Err(StorageError::new(StorageErrorKind::NotFound, operation).with_key(key));
    }
    Ok(info)
}

/// Whether the part in the file is the one of the receipt: by memory, else by reading it.
fn verify(file: &File, id: &UnfinishedId, state: &UploadState, part: &PartReceipt) -> io::Result<()> {
    let known = state.part(part.number).lock().unwrap_or_else(PoisonError::into_inner).clone();
    let is_good = match known {
        Some(known) => known == *part,
        None => part_etag(file, id, part)?.is_some_and(|etag| etag == part.etag),
    };
    if is_good {
        return Ok(());
    }
    let reason = format!("part {} is not the one that was put", part.number);
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

/// Nothing when the file ends before the part does.
fn part_etag(file: &File, id: &UnfinishedId, part: &PartReceipt) -> io::Result<Option<String>> {
    let mut hasher = Crc64Hasher::default();
    let mut buffer = vec![0; VERIFY_BUFFER_SIZE_BYTES];
    let mut position = u64::from(part.number - 1) * id.part_size_bytes;
    let end = position + part.size_bytes;
    while position < end {
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
        let got = file.read_at(&mut buffer[..wanted], position)?;
        if got == 0 {
            return Ok(None);
        }
        hasher.update(&buffer[..got]);
        position += got as u64;
    }
    Ok(Some(hasher.finish().to_string()))
}
