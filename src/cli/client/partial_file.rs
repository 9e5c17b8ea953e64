//! The temporary file of a download: a hidden file next to the destination, which is renamed when it is
//! complete.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::fs::{self, File, OpenOptions};

use super::failure::Failure;
use crate::domain::clock::{IdSource, SystemIds};

/// A temporary file that is deleted when it is dropped.
#[derive(Debug)]
pub(super) struct PartialFile {
    path: PathBuf,
    destination: PathBuf,
    replace: bool,
}

impl PartialFile {
    /// Creates the file in the directory of `destination`, so that the final rename is atomic.
    ///
    /// # Errors
    /// Returns [`Failure::Usage`] if `destination` exists, unless it is a regular file and `replace` is set.
    pub(super) async fn create(destination: PathBuf, replace: bool) -> Result<(Self, File), Failure> {
        match fs::metadata(&destination).await {
            Ok(metadata) if !metadata.is_file() => {
                return Err(usage_error(
                    &destination,
                    "is not a regular file; pass `-o -` to write to standard output",
                ));
            }
            Ok(_) if !replace => return Err(exists_error(&destination)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::local_io(format!("read the metadata of {}", destination.display()))(
                    error,
                ));
            }
        }
        // The temporary name must not include the file's name, which may already have the maximum length.
        let path = destination.with_file_name(format!(".strongroom-{}.part", SystemIds.uuid()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).await;
        let file = file.map_err(Failure::local_io(format!("create {}", path.display())))?;
        Ok((Self { path, destination, replace }, file))
    }

    /// Moves the completed file to its destination. Does not overwrite a destination that was created in the
    /// meantime, unless `replace` is set.
    pub(super) async fn persist(self) -> Result<PathBuf, Failure> {
        if !self.replace {
            match fs::hard_link(&self.path, &self.destination).await {
                // Dropping `self` deletes the temporary name.
                Ok(()) => return Ok(self.destination.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(exists_error(&self.destination));
                }
                // The file system does not support links. A rename would overwrite the destination, so check
                // it first.
                Err(_) if fs::try_exists(&self.destination).await.unwrap_or(true) => {
                    return Err(exists_error(&self.destination));
                }
                Err(_) => {}
            }
        }
        let moved = fs::rename(&self.path, &self.destination).await;
        moved.map_err(Failure::local_io(format!("move the download to {}", self.destination.display())))?;
        Ok(self.destination.clone())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // After a rename the file no longer exists, and a drop cannot report any other error.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn exists_error(path: &Path) -> Failure {
    usage_error(path, "already exists; pass --force to replace it, or --output to use another path")
}

fn usage_error(path: &Path, problem: &str) -> Failure {
    Failure::Usage(format!("{} {problem}", path.display()))
}
