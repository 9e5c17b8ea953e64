//! A directory of files that are not ours: what imports are read from. Nothing is ever written there.
//!
//! It is no [`ObjectStorage`](super::ObjectStorage): its keys are names that others chose, and no tenant stands in them.
//! A key is the path below the directory. A link is followed only where it stays inside.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use rustix::fs::OFlags;

use super::{ForeignObject, StorageError, StorageErrorKind};

/// As small as a chunk of an upload may be configured.
const READ_SIZE_BYTES: u64 = 64 * 1024;
const OPEN: &str = "open foreign object";
const LIST: &str = "list foreign objects";

/// A directory to import from.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Looks for the directory.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn open(path: &Path) -> Result<Self, StorageError> {
        let path = path.to_owned();
        let root = blocking(OPEN, move || fs::canonicalize(path)).await?;
        Ok(Self { root })
    }

    /// Opens the file with this key.
    ///
    /// # Errors
    /// `NotFound` for what is not there, is no file, or lies outside, which look alike.
    pub async fn get(&self, key: &str) -> Result<ForeignObject, StorageError> {
        let path = self.path(key).ok_or_else(|| StorageError::new(StorageErrorKind::NotFound, OPEN))?;
        let root = self.root.clone();
        let (file, size_bytes) = blocking(OPEN, move || {
            let path = fs::canonicalize(path)?;
            // Looked at before it is opened: to open a pipe would wait for whoever writes to it, and to open a device may do
            // something. What changes in between does not wait either, and is no file.
            if !path.starts_with(&root) || !fs::metadata(&path)?.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
            let file = OpenOptions::new().read(true).custom_flags(without_waiting).open(&path)?;
            let about = file.metadata()?;
            match about.is_file() {
                true => Ok((file, about.len())),
                false => Err(io::ErrorKind::NotFound.into()),
            }
        })
        .await?;
        let body = stream::try_unfold(file, |mut file| async move {
            blocking(OPEN, move || {
                let mut piece = Vec::new();
                (&mut file).take(READ_SIZE_BYTES).read_to_end(&mut piece)?;
                Ok((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
            })
            .await
        });
        Ok(ForeignObject { size_bytes, mime_type: String::new(), body: body.boxed() })
    }

    /// Walks over the files whose keys begin with a prefix, which is text and not a directory.
    pub fn walk(&self, prefix: &str) -> Walk {
        Walk { root: self.root.clone(), prefix: prefix.to_owned(), pending: vec![String::new()] }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        let is_plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
        key.split('/').all(is_plain).then(|| self.root.join(key))
    }
}

/// A walk in the order of names, a directory before what follows it. Holds the names of the directories that it is in.
#[derive(Debug)]
pub struct Walk {
    root: PathBuf,
    prefix: String,
    /// Keys to look at, the next one last; of a directory it ends with a slash, and of the root it is empty.
    pending: Vec<String>,
}

impl Walk {
    /// The next key, until there is none. Links are left out: what they point to has a key of its own, or is not inside.
    ///
    /// # Errors
    /// When a directory cannot be read, or a name is no UTF-8 and so no key.
    pub async fn next(&mut self) -> Result<Option<String>, StorageError> {
        while let Some(key) = self.pending.pop() {
            if !key.is_empty() && !key.ends_with('/') {
                return Ok(Some(key));
            }
            let (directory, prefix) = (self.root.join(&key), self.prefix.clone());
            let mut found = blocking(LIST, move || entries(&directory, &key, &prefix)).await?;
            found.sort_unstable_by(|one, two| two.cmp(one));
            self.pending.append(&mut found);
        }
        Ok(None)
    }
}

fn entries(directory: &Path, key: &str, prefix: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name().into_string().map_err(|name| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the name {} is not UTF-8", name.display()))
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

async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done =
        done.map_err(|error| StorageError::new(StorageErrorKind::Other, operation).with_source(error))?;
    done.map_err(|error| {
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
    async fn what_is_no_file_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        mknodat(CWD, root.path().join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        std::os::unix::fs::symlink(root.path().join("pipe"), root.path().join("link")).unwrap();
        fs::create_dir(root.path().join("below")).unwrap();
        let directory = Directory::open(root.path()).await.unwrap();
        let too_long = "x".repeat(300);
        // Nobody ever writes to the pipe: to open it would wait for ever.
        for key in ["pipe", "link", "below", "absent", &too_long] {
            let refused = directory.get(key).await.err().unwrap();
            assert_eq!(refused.kind, StorageErrorKind::NotFound, "{key}");
        }
    }
}
