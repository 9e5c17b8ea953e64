//! File system operations: write, sync, link, and sync the directories. Everything here blocks.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use uuid::Uuid;

use super::{
    super::{
        DeletionResults, MultipartId, ObjectInfo, ObjectMetadata, PartLayout, Payload, Space, StorageError,
        StorageErrorKind,
    },
    metadata,
};
use crate::domain::{clock::Timestamp, object_key::ObjectKey};

/// The number of directories cached as durable. Each takes a few hundred bytes; dropping the cache costs a
/// few syncs.
const DURABLE_DIRECTORIES_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) objects: PathBuf,
    pub(super) unfinished: PathBuf,
    /// Directories that are known to survive a power failure, with all their parents. A cache.
    durable: Mutex<HashSet<PathBuf>>,
}

/// Separates the part size from the number of equal parts in the id of an upload whose parts grow.
const EQUAL_PARTS_SEPARATOR: char = '+';

/// The identity of an unfinished file: its id and the layout of its upload. The part size of a put is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct UnfinishedId {
    pub(super) uuid: Uuid,
    pub(super) layout: PartLayout,
}

impl UnfinishedId {
    pub(super) const fn put(uuid: Uuid) -> Self {
        Self { uuid, layout: PartLayout::equal(0) }
    }

    pub(super) const fn multipart(uuid: Uuid, layout: PartLayout) -> Self {
        Self { uuid, layout }
    }

    pub(super) fn to_multipart_id(self) -> MultipartId {
        let size = self.layout.part_size_bytes();
        MultipartId::new(match self.layout.equal_parts() {
            Some(equal_parts) => format!("{}.{size}{EQUAL_PARTS_SEPARATOR}{equal_parts}", self.uuid),
            None => format!("{}.{size}", self.uuid),
        })
    }

    /// Parses an id. Accepts only the exact text that this store generates, because the id becomes part of a
    /// path.
    pub(super) fn parse(id: &MultipartId) -> Option<Self> {
        let (uuid, size) = id.as_str().split_once('.')?;
        let layout = match size.split_once(EQUAL_PARTS_SEPARATOR) {
            Some((size, equal_parts)) => PartLayout::growing(size.parse().ok()?, equal_parts.parse().ok()?),
            None => PartLayout::equal(size.parse().ok()?),
        };
        let parsed = Self { uuid: Uuid::try_parse(uuid).ok()?, layout };
        (parsed.to_multipart_id() == *id).then_some(parsed)
    }

    pub(super) fn parse_multipart(
        id: &MultipartId,
        key: &ObjectKey,
        operation: &'static str,
    ) -> Result<Self, StorageError> {
        let parsed = Self::parse(id).filter(|parsed| parsed.layout.part_size_bytes() > 0);
        parsed.ok_or_else(|| invalid_id_error(id, key, operation))
    }

    pub(super) fn file_name(self, key: &ObjectKey) -> String {
        format!("{}~{}", self.to_multipart_id(), key.as_str().replace('/', "~"))
    }
}

impl Disk {
    pub(super) fn open(root: &Path) -> Result<Self, StorageError> {
        let create = || {
            let root = std::path::absolute(root)?;
            let disk = Self {
                objects: root.join("objects"),
                unfinished: root.join("multipart"),
                durable: Mutex::default(),
            };
            let missing = root.ancestors().take_while(|directory| !directory.exists()).count();
            create_private_directories(&disk.objects)?;
            create_private_directories(&disk.unfinished)?;
            // Sync the root, all newly created parents, and the first parent that already existed.
            root.ancestors().take(missing + 1).try_for_each(sync_directory)?;
            Ok(disk)
        };
        create().map_err(|error| map_io_error(error, "open local store"))
    }

    pub(super) fn object_path(&self, key: &ObjectKey) -> PathBuf {
        self.objects.join(key.as_str())
    }

    pub(super) fn unfinished_path(&self, key: &ObjectKey, id: &UnfinishedId) -> PathBuf {
        self.unfinished.join(id.file_name(key))
    }

    pub(super) fn put(
        &self,
        key: &ObjectKey,
        id: &UnfinishedId,
        body: &Payload,
        metadata: &[(String, String)],
        is_abandoned: &AtomicBool,
    ) -> Result<ObjectInfo, StorageError> {
        let operation = "put object";
        let path = self.unfinished_path(key, id);
        let write = || {
            let file = create_private_file(&path)?;
            metadata::write(&file, metadata)?;
            write_all_at(&file, body, 0)?;
            file.sync_all()?;
            // The last point at which the put can be abandoned without a trace. After it, the object exists
            // as a whole.
            if is_abandoned.load(Ordering::Acquire) {
                return Err(io::Error::other("the caller abandoned the put"));
            }
            self.link(&path, key)?;
            file.metadata()
        };
        let written = write();
        self.remove_unfinished_or_warn(key, id);
        let metadata = written.map_err(|error| map_io_error(error, operation).with_key(key))?;
        self.make_durable(key, operation)?;
        object_info(key, &metadata, operation)
    }

    pub(super) fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        id: &UnfinishedId,
        metadata: &[(String, String)],
    ) -> Result<ObjectInfo, StorageError> {
        let operation = "copy object";
        let source = File::open(self.object_path(from));
        let mut source = source.map_err(|error| map_io_error(error, operation).with_key(from))?;
        let path = self.unfinished_path(to, id);
        let mut write = || {
            let mut file = create_private_file(&path)?;
            metadata::write(&file, metadata)?;
            io::copy(&mut source, &mut file)?;
            file.sync_all()?;
            self.link(&path, to)?;
            file.metadata()
        };
        let written = write();
        self.remove_unfinished_or_warn(to, id);
        let metadata = written.map_err(|error| map_io_error(error, operation).with_key(to))?;
        self.make_durable(to, operation)?;
        object_info(to, &metadata, operation)
    }

    /// Returns the space that an unprivileged process can still use.
    pub(super) fn space(&self) -> Result<Space, StorageError> {
        let stat = rustix::fs::statvfs(&self.objects).map_err(io::Error::from);
        let stat = stat.map_err(|error| map_io_error(error, "query free space"))?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    pub(super) fn start_multipart(
        &self,
        key: &ObjectKey,
        id: &UnfinishedId,
        metadata: &[(String, String)],
    ) -> Result<MultipartId, StorageError> {
        let start = || {
            let file = create_private_file(&self.unfinished_path(key, id))?;
            // Synced with the file, before it becomes an object.
            metadata::write(&file, metadata)?;
            sync_directory(&self.unfinished)
        };
        start().map_err(|error| map_io_error(error, "start multipart upload").with_key(key))?;
        Ok(id.to_multipart_id())
    }

    /// Links a written and synced file under the object's name. Fails if the object exists.
    pub(super) fn link(&self, unfinished: &Path, key: &ObjectKey) -> io::Result<()> {
        let object = self.object_path(key);
        match fs::hard_link(unfinished, &object) {
            // The directory of a new day does not exist yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = object.parent().unwrap_or(&self.objects);
                self.lock_durable().remove(directory);
                create_private_directories(directory)?;
                fs::hard_link(unfinished, &object).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => {
                        io::Error::new(io::ErrorKind::Interrupted, "the upload was aborted during the write")
                    }
                    _ => error,
                })
            }
            result => result,
        }
    }

    /// Syncs the directory entry of the object, and its parent directories unless they are known to be
    /// durable. If this fails, deletes the object: every visible object is durable or about to be.
    pub(super) fn make_durable(&self, key: &ObjectKey, operation: &'static str) -> Result<(), StorageError> {
        let object = self.object_path(key);
        let Err(error) = self.sync_parents(&object) else { return Ok(()) };
        if let Err(error) = fs::remove_file(&object) {
            tracing::error!(%key, %error, "failed to delete non-durable object");
        }
        Err(map_io_error(error, operation).with_key(key))
    }

    fn sync_parents(&self, object: &Path) -> io::Result<()> {
        let directory = object.parent().unwrap_or(&self.objects);
        sync_directory(directory)?;
        if self.lock_durable().contains(directory) {
            return Ok(());
        }
        for parent in directory.ancestors().skip(1).take_while(|parent| parent.starts_with(&self.objects)) {
            sync_directory(parent)?;
        }
        let mut durable = self.lock_durable();
        if durable.len() >= DURABLE_DIRECTORIES_MAX {
            durable.clear();
        }
        durable.insert(directory.to_owned());
        Ok(())
    }

    fn lock_durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remove_unfinished(
        &self,
        key: &ObjectKey,
        id: &UnfinishedId,
        operation: &'static str,
    ) -> Result<(), StorageError> {
        let removed = remove_file(&self.unfinished_path(key, id));
        removed.map(|_| ()).map_err(|error| map_io_error(error, operation).with_key(key))
    }

    /// Removes an unfinished file that became an object or was abandoned. If that fails, the file is still
    /// listed as unfinished and can be aborted.
    pub(super) fn remove_unfinished_or_warn(&self, key: &ObjectKey, id: &UnfinishedId) {
        if let Err(error) = remove_file(&self.unfinished_path(key, id)) {
            tracing::warn!(%key, %error, "failed to remove unfinished file");
        }
    }

    /// Returns whether the open file is already linked under the object's name.
    pub(super) fn is_object(&self, file: &File, key: &ObjectKey) -> io::Result<bool> {
        let object = match fs::symlink_metadata(self.object_path(key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            metadata => metadata?,
        };
        let file = file.metadata()?;
        Ok((file.dev(), file.ino()) == (object.dev(), object.ino()))
    }

    pub(super) fn head(&self, key: &ObjectKey, operation: &'static str) -> Result<ObjectInfo, StorageError> {
        let metadata = fs::symlink_metadata(self.object_path(key));
        object_info(key, &metadata.map_err(|error| map_io_error(error, operation).with_key(key))?, operation)
    }

    pub(super) fn read_metadata(&self, key: &ObjectKey) -> Result<ObjectMetadata, StorageError> {
        let operation = "read metadata of object";
        let at = |error: io::Error| map_io_error(error, operation).with_key(key);
        let file = File::open(self.object_path(key)).map_err(at)?;
        object_info(key, &file.metadata().map_err(at)?, operation)?;
        metadata::read(&file).map_err(at)
    }

    pub(super) fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        let object = self.object_path(key);
        let delete = || match remove_file(&object)? {
            true => sync_directory(object.parent().unwrap_or(&self.objects)),
            false => Ok(()),
        };
        delete().map_err(|error| map_io_error(error, "delete object").with_key(key))
    }

    /// Deletes objects, and syncs each of their directories once.
    pub(super) fn delete_batch(&self, keys: &[ObjectKey]) -> DeletionResults {
        let directory_of = |key: &ObjectKey| {
            self.object_path(key).parent().map_or_else(|| self.objects.clone(), Path::to_owned)
        };
        let removed: Vec<io::Result<bool>> =
            keys.iter().map(|key| remove_file(&self.object_path(key))).collect();
        let changed = keys.iter().zip(&removed).filter(|(_, removed)| matches!(removed, Ok(true)));
        let changed: HashSet<PathBuf> = changed.map(|(key, _)| directory_of(key)).collect();
        let mut unsynced: HashMap<PathBuf, io::Error> = HashMap::new();
        for directory in changed {
            if let Err(error) = sync_directory(&directory) {
                unsynced.insert(directory, error);
            }
        }
        let result = |(key, removed): (&ObjectKey, io::Result<bool>)| {
            let deleted = match (removed, unsynced.get(&directory_of(key))) {
                (Err(error), _) => Err(error),
                (Ok(true), Some(error)) => Err(io::Error::new(error.kind(), error.to_string())),
                (Ok(_), _) => Ok(()),
            };
            deleted.map_err(|error| map_io_error(error, "delete object").with_key(key))
        };
        keys.iter().zip(removed).map(result).collect()
    }

    /// Writes, syncs and removes a test file.
    pub(super) fn check(&self, id: Uuid) -> Result<(), StorageError> {
        let path = self.unfinished.join(format!("{id}.check"));
        let write = || {
            let file = create_private_file(&path)?;
            file.write_all_at(b"strongroom", 0)?;
            file.sync_all()
        };
        let written = write();
        let removed = remove_file(&path);
        written.and(removed).map(|_| ()).map_err(|error| map_io_error(error, "check store"))
    }
}

/// Creates a directory and its parents. New directories are accessible by the owner only; existing ones are
/// unchanged.
pub(super) fn create_private_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a file. Returns whether it existed.
pub(super) fn remove_file(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn write_all_at(file: &File, body: &Payload, mut offset: u64) -> io::Result<()> {
    for chunk in body.chunks() {
        file.write_all_at(chunk, offset)?;
        offset += chunk.len() as u64;
    }
    Ok(())
}

/// Asks the kernel to drop written and synced data from the page cache. A large file is usually read later or
/// never. If cached, it evicts data that others need (PostgreSQL, on a small machine), and every further byte
/// needs newly allocated memory: half of an upload's system time. This is only a hint, so errors are ignored.
pub(super) fn drop_from_page_cache(file: &File, offset: u64, len_bytes: u64) {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(len_bytes), rustix::fs::Advice::DontNeed)
    {
        tracing::debug!(%error, "failed to drop data from the page cache");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, len_bytes);
}

pub(super) fn object_info(
    key: &ObjectKey,
    metadata: &fs::Metadata,
    operation: &'static str,
) -> Result<ObjectInfo, StorageError> {
    if !metadata.is_file() {
        return Err(StorageError::new(StorageErrorKind::NotFound, operation)
            .with_key(key)
            .with_source("not a regular file"));
    }
    let modify_time = metadata.modified().map_err(|error| map_io_error(error, operation).with_key(key))?;
    Ok(ObjectInfo { key: key.clone(), size_bytes: metadata.len(), modify_time: Timestamp::from(modify_time) })
}

pub(super) fn invalid_id_error(id: &MultipartId, key: &ObjectKey, operation: &'static str) -> StorageError {
    StorageError::invalid_input(operation, format!("{:?} is not a multipart id of this store", id.as_str()))
        .with_key(key)
}

/// Maps an I/O error to a storage error. This is the only place that classifies them.
pub(super) fn map_io_error(error: io::Error, operation: &'static str) -> StorageError {
    /// The Linux error numbers ENFILE and EMFILE, which have no `io::ErrorKind`: too many open files in the
    /// system or in the process.
    const TOO_MANY_OPEN_FILES: [Option<i32>; 2] = [Some(23), Some(24)];
    let kind = match error.kind() {
        io::ErrorKind::NotFound => StorageErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => StorageErrorKind::AlreadyExists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageErrorKind::NoSpace,
        io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput => StorageErrorKind::InvalidInput,
        io::ErrorKind::UnexpectedEof => StorageErrorKind::Damaged,
        io::ErrorKind::Interrupted
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::TimedOut
        | io::ErrorKind::ResourceBusy
        | io::ErrorKind::OutOfMemory => StorageErrorKind::Transient,
        _ if TOO_MANY_OPEN_FILES.contains(&error.raw_os_error()) => StorageErrorKind::Transient,
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::StaleNetworkFileHandle => StorageErrorKind::Unavailable,
        // EIO: a disk error. An immediate retry does not help.
        _ if error.raw_os_error() == Some(5) => StorageErrorKind::Unavailable,
        _ => StorageErrorKind::Other,
    };
    StorageError::new(kind, operation).with_source(error)
}
