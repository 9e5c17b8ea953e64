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

use super::{SourceObject, StorageError, StorageErrorKind};

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
        DirectoryKeys { root: self.root.clone(), prefix: prefix.to_owned(), pending: vec![String::new()] }
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
    /// Keys still to visit, the next one last. The key of a directory ends with a slash; the key of the root
    /// is empty.
    pending: Vec<String>,
}

impl DirectoryKeys {
    /// Returns the next key, or `None` at the end. Symbolic links are skipped: their target is either listed
    /// under its own key or is outside the directory.
    ///
    /// # Errors
    /// Returns an error if a directory cannot be read or a file name is not UTF-8.
    pub async fn next(&mut self) -> Result<Option<String>, StorageError> {
        while let Some(key) = self.pending.pop() {
            if !key.is_empty() && !key.ends_with('/') {
                return Ok(Some(key));
            }
            let (directory, prefix) = (self.root.join(&key), self.prefix.clone());
            let mut found = run_blocking(LIST, move || list_entries(&directory, &key, &prefix)).await?;
            found.sort_unstable_by(|one, two| two.cmp(one));
            self.pending.append(&mut found);
        }
        Ok(None)
    }
}

fn list_entries(directory: &Path, key: &str, prefix: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name().into_string().map_err(|name| {
            io::Error::new(io::ErrorKind::InvalidData, format!("file name {} is not UTF-8", name.display()))
        })?;
        let below = format!("{key}{name}");
        if kind.is_file() && below.starts_with(prefix) {
            found.push(below);
        } else if kind.is_dir() {
            let below = format!("{below}/");
            if below.starts_with(prefix) || prefix.starts_with(&below) {
                found.push(below);
            }
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
