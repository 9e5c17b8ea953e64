//! The steps that make a file an object: write, sync, link, sync the directories. All of it blocks.

use std::{
    collections::HashSet,
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
    super::{MultipartId, ObjectInfo, Payload, Space, StorageError, StorageErrorKind},
    foreign_id,
};
use crate::domain::{clock::Timestamp, object_key::ObjectKey};

/// How many directories are remembered as durable: a few hundred bytes each, and forgetting costs a few
/// syncs.
const DURABLE_DIRECTORIES_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) objects: PathBuf,
    pub(super) unfinished: PathBuf,
    /// Directories known to survive a power cut, with all above them. A cache.
    durable: Mutex<HashSet<PathBuf>>,
}

/// Names an unfinished file: who it is, and how large its parts are (0: a put in one piece).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct UnfinishedId {
    pub(super) uuid: Uuid,
    pub(super) part_size_bytes: u64,
}

impl UnfinishedId {
    pub(super) const fn put(uuid: Uuid) -> Self {
        Self { uuid, part_size_bytes: 0 }
    }

    pub(super) const fn multipart(uuid: Uuid, part_size_bytes: u64) -> Self {
        Self { uuid, part_size_bytes }
    }

    pub(super) fn to_multipart_id(self) -> MultipartId {
        MultipartId::new(format!("{}.{}", self.uuid, self.part_size_bytes))
    }

    /// Only what we wrote ourselves, since it becomes part of a path.
    pub(super) fn parse(id: &MultipartId) -> Option<Self> {
        let (uuid, size) = id.as_str().split_once('.')?;
        let parsed = Self { uuid: Uuid::try_parse(uuid).ok()?, part_size_bytes: size.parse().ok()? };
        (parsed.to_multipart_id() == *id).then_some(parsed)
    }

    pub(super) fn parse_multipart(
        id: &MultipartId,
        key: &ObjectKey,
        operation: &'static str,
    ) -> Result<Self, StorageError> {
        let parsed = Self::parse(id).filter(|parsed| parsed.part_size_bytes > 0);
        parsed.ok_or_else(|| foreign_id(id, key, operation))
    }

    pub(super) fn file_name(self, key: &ObjectKey) -> String {
        format!("{}~{}", self.to_multipart_id(), key.as_str().replace('/', "~"))
    }
}

impl Disk {
    pub(super) fn open(root: &Path) -> Result<Self, StorageError> {
        let make = || {
            let root = std::path::absolute(root)?;
            let disk = Self {
                objects: root.join("objects"),
                unfinished: root.join("multipart"),
                durable: Mutex::default(),
            };
            let missing = root.ancestors().take_while(|directory| !directory.exists()).count();
            create_directories(&disk.objects)?;
            create_directories(&disk.unfinished)?;
            // The root, and what is above it as far as it is new, up to the directory that was there.
            root.ancestors().take(missing + 1).try_for_each(sync_directory)?;
            Ok(disk)
        };
        make().map_err(|error| failed(error, "open local store"))
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
        is_abandoned: &AtomicBool,
    ) -> Result<ObjectInfo, StorageError> {
        let operation = "put object";
        let path = self.unfinished_path(key, id);
        let write = || {
            let file = create_file(&path)?;
            write_all_at(&file, body, 0)?;
            file.sync_all()?;
            // The last moment to leave no trace. A caller who goes after it finds the object there, whole.
            if is_abandoned.load(Ordering::Acquire) {
                return Err(io::Error::other("the caller is gone"));
            }
            self.link(&path, key)?;
            file.metadata()
        };
        let written = write();
        self.tidy(key, id);
        let metadata = written.map_err(|error| failed(error, operation).with_key(key))?;
        self.make_durable(key, operation)?;
        info(key, &metadata, operation)
    }

    pub(super) fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        id: &UnfinishedId,
    ) -> Result<ObjectInfo, StorageError> {
        let operation = "copy object";
        let source = File::open(self.object_path(from));
        let mut source = source.map_err(|error| failed(error, operation).with_key(from))?;
        let path = self.unfinished_path(to, id);
        let mut write = || {
            let mut file = create_file(&path)?;
            io::copy(&mut source, &mut file)?;
            file.sync_all()?;
            self.link(&path, to)?;
            file.metadata()
        };
        let written = write();
        self.tidy(to, id);
        let metadata = written.map_err(|error| failed(error, operation).with_key(to))?;
        self.make_durable(to, operation)?;
        info(to, &metadata, operation)
    }

    /// What a process without special rights may still write.
    pub(super) fn space(&self) -> Result<Space, StorageError> {
        let found = rustix::fs::statvfs(&self.objects).map_err(io::Error::from);
        let found = found.map_err(|error| failed(error, "ask for space"))?;
        Ok(Space {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    pub(super) fn start_multipart(
        &self,
        key: &ObjectKey,
        id: &UnfinishedId,
    ) -> Result<MultipartId, StorageError> {
        let start = || {
            create_file(&self.unfinished_path(key, id))?;
            sync_directory(&self.unfinished)
        };
        start().map_err(|error| failed(error, "start multipart upload").with_key(key))?;
        Ok(id.to_multipart_id())
    }

    /// Gives a written and synced file the object's name. Fails when there is such an object.
    pub(super) fn link(&self, unfinished: &Path, key: &ObjectKey) -> io::Result<()> {
        let object = self.object_path(key);
        match fs::hard_link(unfinished, &object) {
            // The directory of a new day.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = object.parent().unwrap_or(&self.objects);
                self.durable().remove(directory);
                create_directories(directory)?;
                fs::hard_link(unfinished, &object).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => {
                        io::Error::new(io::ErrorKind::Interrupted, "aborted while written")
                    }
                    _ => error,
                })
            }
            result => result,
        }
    }

    /// Makes the object's name survive a power cut, and the directories above it where that is not known.
    /// When that fails, the object goes again: what is there is durable, or about to be.
    pub(super) fn make_durable(&self, key: &ObjectKey, operation: &'static str) -> Result<(), StorageError> {
        let object = self.object_path(key);
        let Err(error) = self.sync_parents(&object) else { return Ok(()) };
        if let Err(error) = fs::remove_file(&object) {
            tracing::error!(%key, %error, "an object that is not durable could not be removed");
        }
        Err(failed(error, operation).with_key(key))
    }

    fn sync_parents(&self, object: &Path) -> io::Result<()> {
        let directory = object.parent().unwrap_or(&self.objects);
        sync_directory(directory)?;
        if self.durable().contains(directory) {
            return Ok(());
        }
        for above in directory.ancestors().skip(1).take_while(|above| above.starts_with(&self.objects)) {
            sync_directory(above)?;
        }
        let mut durable = self.durable();
        if durable.len() >= DURABLE_DIRECTORIES_MAX {
            durable.clear();
        }
        durable.insert(directory.to_owned());
        Ok(())
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remove_unfinished(
        &self,
        key: &ObjectKey,
        id: &UnfinishedId,
        operation: &'static str,
    ) -> Result<(), StorageError> {
        let removed = remove_file(&self.unfinished_path(key, id));
        removed.map(|_| ()).map_err(|error| failed(error, operation).with_key(key))
    }

    /// Removes what has become an object, or never will. A file that stays is listed as unfinished and can be
    /// aborted.
    pub(super) fn tidy(&self, key: &ObjectKey, id: &UnfinishedId) {
        if let Err(error) = remove_file(&self.unfinished_path(key, id)) {
            tracing::warn!(%key, %error, "an unfinished file could not be removed");
        }
    }

    /// Whether the open file carries the object's name already.
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
        info(key, &metadata.map_err(|error| failed(error, operation).with_key(key))?, operation)
    }

    pub(super) fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        let object = self.object_path(key);
        let delete = || match remove_file(&object)? {
            true => sync_directory(object.parent().unwrap_or(&self.objects)),
            false => Ok(()),
        };
        delete().map_err(|error| failed(error, "delete object").with_key(key))
    }

    /// Writes, syncs and removes a file.
    pub(super) fn check(&self, id: Uuid) -> Result<(), StorageError> {
        let path = self.unfinished.join(format!("{id}.check"));
        let write = || {
            let file = create_file(&path)?;
            file.write_all_at(b"strongroom", 0)?;
            file.sync_all()
        };
        let written = write();
        let removed = remove_file(&path);
        written.and(removed).map(|_| ()).map_err(|error| failed(error, "check store"))
    }
}

/// New directories are for the owner only; those that are there stay as they are.
fn create_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether it was there.
fn remove_file(path: &Path) -> io::Result<bool> {
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

/// Tells the kernel that it need not keep in memory what was written and synced. A large file is mostly read later or never;
/// kept, it pushes out what others read (PostgreSQL, on a small machine), and every further byte needs fresh memory: half
/// of an upload's system time. A hint, so nothing depends on it.
pub(super) fn leave_cache(file: &File, offset: u64, len_bytes: u64) {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(len_bytes), rustix::fs::Advice::DontNeed)
    {
        tracing::debug!(%error, "leave the page cache");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, len_bytes);
}

pub(super) fn info(
    key: &ObjectKey,
    metadata: &fs::Metadata,
    operation: &'static str,
) -> Result<ObjectInfo, StorageError> {
    if !metadata.is_file() {
        return Err(StorageError::new(StorageErrorKind::NotFound, operation)
            .with_key(key)
            .with_source("not a file"));
    }
    let modify_time = metadata.modified().map_err(|error| failed(error, operation).with_key(key))?;
    Ok(ObjectInfo { key: key.clone(), size_bytes: metadata.len(), modify_time: Timestamp::from(modify_time) })
}

/// The one place that says what an error of the file system means to a caller.
pub(super) fn failed(error: io::Error, operation: &'static str) -> StorageError {
    /// Linux's numbers for what `io::ErrorKind` has no name for: too many open files, in the system or the
    /// process.
    const OPEN_FILES_EXHAUSTED: [Option<i32>; 2] = [Some(23), Some(24)];
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
        _ if OPEN_FILES_EXHAUSTED.contains(&error.raw_os_error()) => StorageErrorKind::Transient,
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::StaleNetworkFileHandle => StorageErrorKind::Unavailable,
        // EIO: the disk itself. Asking again at once does not mend it.
        _ if error.raw_os_error() == Some(5) => StorageErrorKind::Unavailable,
        _ => StorageErrorKind::Other,
    };
    StorageError::new(kind, operation).with_source(error)
}
