//! A directory of existing files, as an import source. It is only read.
//!
//! It does not implement [`ObjectStorage`](super::ObjectStorage): its keys are arbitrary file names and
//! contain no tenant. A key is the path of a file relative to the directory. Symbolic links are followed only
//! if they resolve to a path inside the directory.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use rustix::fs::OFlags;

use super::{
    SourceObject, StorageError, StorageErrorKind,
    source_entry::{EntryProblem, SourceEntry},
};

/// The smallest chunk size that can be configured for uploads.
const READ_SIZE_BYTES: u64 = 64 * 1024;
const OPEN: &str = "open source object";
const LIST: &str = "list source objects";

/// A directory of existing files.
#[derive(Debug, Clone)]
pub struct SourceDirectory {
    root: PathBuf,
}

impl SourceDirectory {
    /// Opens the directory.
    ///
    /// # Errors
    /// Returns `NotFound` if the path does not exist, and `Other` if it cannot be resolved.
    pub async fn open(path: &Path) -> Result<Self, StorageError> {
        let path = path.to_owned();
        let root = run_blocking(OPEN, move || fs::canonicalize(path)).await?;
        Ok(Self { root })
    }

    /// Opens the file with this key for reading.
    ///
    /// # Errors
    /// Returns `NotFound` if the key does not name a regular file inside the directory. The error does not
    /// show whether the path is missing, is not a file, or is outside the directory.
    pub async fn get(&self, key: &str) -> Result<SourceObject, StorageError> {
        let path =
            self.resolve_key(key).ok_or_else(|| StorageError::new(StorageErrorKind::NotFound, OPEN))?;
        let root = self.root.clone();
        let (file, size_bytes) = run_blocking(OPEN, move || {
            let path = fs::canonicalize(path)?;
            // Check the type before opening: opening a FIFO blocks until there is a writer, and opening a
            // device can have side effects. The file can be replaced between the check and the open, so the
            // open does not block either, and the type of the opened file is checked again.
            if !path.starts_with(&root) || !fs::metadata(&path)?.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
            let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(&path)?;
            let metadata = file.metadata()?;
            match metadata.is_file() {
                true => Ok((file, metadata.len())),
                false => Err(io::ErrorKind::NotFound.into()),
            }
        })
        .await?;
        let body = stream::try_unfold(file, |mut file| async move {
            run_blocking(OPEN, move || {
                let mut piece = Vec::new();
                (&mut file).take(READ_SIZE_BYTES).read_to_end(&mut piece)?;
                Ok((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
            })
            .await
        });
        Ok(SourceObject { size_bytes, mime_type: String::new(), body: body.boxed() })
    }

    /// Lists the keys that start with a prefix. The prefix is text; it need not end at a directory.
    pub fn list_keys(&self, prefix: &str) -> DirectoryKeys {
        let root = Pending { key: String::new(), kind: PendingKind::Directory };
        DirectoryKeys { root: self.root.clone(), prefix: prefix.to_owned(), pending: vec![root] }
    }

    fn resolve_key(&self, key: &str) -> Option<PathBuf> {
        let is_plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
        key.split('/').all(is_plain).then(|| self.root.join(key))
    }
}

/// The keys of a [`SourceDirectory`], sorted by name; the files of a directory precede the next name after
/// it. Memory is bounded by the entries of the directories on the current path.
#[derive(Debug)]
pub struct DirectoryKeys {
    root: PathBuf,
    prefix: String,
    /// Entries still to visit, the next one last.
    pending: Vec<Pending>,
}

/// An entry to visit. The fields are in the order by which entries are sorted.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    /// The key. That of a directory ends with a slash; that of the root is empty.
    key: String,
    kind: PendingKind,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PendingKind {
    File,
    Directory,
    Problem(EntryProblem),
}

impl DirectoryKeys {
    /// Returns the next entry, or `None` at the end. An entry that cannot be imported is returned with its
    /// problem, and does not prevent the others from being listed.
    ///
    /// # Errors
    /// Returns an error if the directory of the source cannot be read.
    pub async fn next(&mut self) -> Result<Option<SourceEntry>, StorageError> {
        while let Some(Pending { key, kind }) = self.pending.pop() {
            match kind {
                PendingKind::File => return Ok(Some(SourceEntry::Key(key))),
                PendingKind::Problem(problem) => return Ok(Some(SourceEntry::Problem { key, problem })),
                PendingKind::Directory => {}
            }
            let (directory, prefix) = (self.root.join(&key), self.prefix.clone());
            let below = key.clone();
            match run_blocking(LIST, move || list_entries(&directory, &below, &prefix)).await {
                Ok(mut found) => {
                    found.sort_unstable_by(|one, two| two.cmp(one));
                    self.pending.append(&mut found);
                }
                Err(error) if key.is_empty() => return Err(error),
                // It was deleted in the meantime.
                Err(error) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(key, %error, "failed to read a directory of an import source");
                    return Ok(Some(SourceEntry::Problem { key, problem: EntryProblem::Unreadable }));
                }
            }
        }
        Ok(None)
    }
}

fn list_entries(directory: &Path, key: &str, prefix: &str) -> io::Result<Vec<Pending>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (name, is_utf8) = match entry.file_name().into_string() {
            Ok(name) => (name, true),
            Err(name) => (name.to_string_lossy().into_owned(), false),
        };
        let mut below = format!("{key}{name}");
        let kind = match entry.file_type() {
            _ if !is_utf8 => PendingKind::Problem(EntryProblem::NameNotUtf8),
            Ok(kind) if kind.is_file() => PendingKind::File,
            Ok(kind) if kind.is_dir() => PendingKind::Directory,
            Ok(kind) if kind.is_symlink() => PendingKind::Problem(EntryProblem::Link),
            Ok(_) => PendingKind::Problem(EntryProblem::NoFile),
            Err(_) => PendingKind::Problem(EntryProblem::Unreadable),
        };
        let is_directory = kind == PendingKind::Directory;
        if is_directory {
            below.push('/');
        }
        if below.starts_with(prefix) || is_directory && prefix.starts_with(&below) {
            found.push(Pending { key: below, kind });
        }
    }
    Ok(found)
}

async fn run_blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    let joined = tokio::task::spawn_blocking(work).await;
    let result =
        joined.map_err(|error| StorageError::new(StorageErrorKind::Other, operation).with_source(error))?;
    result.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
                StorageErrorKind::NotFound
            }
            _ => StorageErrorKind::Other,
        };
        StorageError::new(kind, operation).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[tokio::test]
    async fn unusable_entries_do_not_prevent_others() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("b")).unwrap();
        for name in ["a.txt", "b/c.txt", "z.txt"] {
            fs::write(path(name), b"x").unwrap();
        }
        fs::write(root.path().join(OsStr::from_bytes(b"caf\xe9.txt")), b"x").unwrap();
        fs::create_dir(root.path().join(OsStr::from_bytes(b"d\xff"))).unwrap();
        std::os::unix::fs::symlink("a.txt", path("b/link")).unwrap();
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let directory = SourceDirectory::open(root.path()).await.unwrap();
        let list = async |prefix: &str| {
            let mut keys = directory.list_keys(prefix);
            let mut found = Vec::new();
            while let Some(entry) = keys.next().await.unwrap() {
                found.push(match entry {
                    SourceEntry::Key(key) => (key, None),
                    SourceEntry::Problem { key, problem } => (key, Some(problem)),
                });
            }
            found
        };
        let link = ("b/link".to_owned(), Some(EntryProblem::Link));
        assert_eq!(list("b/").await, [("b/c.txt".to_owned(), None), link.clone()]);
        assert_eq!(
            list("").await,
            [
                ("a.txt".to_owned(), None),
                ("b/c.txt".to_owned(), None),
                link,
                ("caf\u{fffd}.txt".to_owned(), Some(EntryProblem::NameNotUtf8)),
                ("d\u{fffd}".to_owned(), Some(EntryProblem::NameNotUtf8)),
                ("pipe".to_owned(), Some(EntryProblem::NoFile)),
                ("z.txt".to_owned(), None),
            ]
        );
        // A directory that is replaced by a file after its parent was listed cannot be read.
        let mut keys = directory.list_keys("");
        assert_eq!(keys.next().await.unwrap(), Some(SourceEntry::Key("a.txt".to_owned())));
        fs::remove_dir_all(path("b")).unwrap();
        std::os::unix::fs::symlink("b", path("b")).unwrap();
        let problem = EntryProblem::Unreadable;
        assert_eq!(keys.next().await.unwrap(), Some(SourceEntry::Problem { key: "b/".to_owned(), problem }));
        assert!(matches!(keys.next().await.unwrap(), Some(SourceEntry::Problem { .. })), "the others follow");
    }

    #[tokio::test]
    async fn opens_only_regular_files() {
        let root = tempfile::tempdir().unwrap();
        mknodat(CWD, root.path().join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        std::os::unix::fs::symlink(root.path().join("pipe"), root.path().join("link")).unwrap();
        fs::create_dir(root.path().join("below")).unwrap();
        let directory = SourceDirectory::open(root.path()).await.unwrap();
        let too_long = "x".repeat(300);
        // The pipe has no writer, so opening it would block forever.
        for key in ["pipe", "link", "below", "absent", &too_long] {
            let error = directory.get(key).await.err().unwrap();
            assert_eq!(error.kind, StorageErrorKind::NotFound, "{key}");
        }
    }
}
