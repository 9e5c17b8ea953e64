//! A download on its way to its place: a hidden file beside the destination, which appears there whole or not
//! at all.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::fs::{self, File, OpenOptions};

use super::failure::Failure;
use crate::domain::clock::{IdSource, SystemIds};

/// The file while it is being written. Dropping it removes it.
#[derive(Debug)]
pub(super) struct PartialFile {
    path: PathBuf,
    destination: PathBuf,
    replace: bool,
}

impl PartialFile {
    /// Creates the file in the directory of `destination`, so that moving it there is one step. Refuses a
    /// destination that exists, unless it is a regular file and may be replaced.
    pub(super) async fn create(destination: PathBuf, replace: bool) -> Result<(Self, File), Failure> {
        match fs::metadata(&destination).await {
            Ok(about) if !about.is_file() => {
                return Err(usage(
                    &destination,
                    "is not a regular file; pass `-o -` to write to standard output",
                ));
            }
            Ok(_) if !replace => return Err(exists(&destination)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::local(format!("look at {}", destination.display()))(error)),
        }
        // The name says nothing of the file's, which may be as long as a name can be.
        let path = destination.with_file_name(format!(".strongroom-{}.part", SystemIds.uuid()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).await;
        let file = file.map_err(Failure::local(format!("create {}", path.display())))?;
        Ok((Self { path, destination, replace }, file))
    }

    /// Moves the file, now whole, to its place. A destination that has appeared meanwhile is not overwritten.
    pub(super) async fn keep(self) -> Result<PathBuf, Failure> {
        if !self.replace {
            match fs::hard_link(&self.path, &self.destination).await {
                // Dropping `self` takes the first name away.
                Ok(()) => return Ok(self.destination.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(exists(&self.destination));
                }
                // This file system has no links. A rename cannot ask whether it overwrites, so we have asked
                // before.
                Err(_) if fs::try_exists(&self.destination).await.unwrap_or(true) => {
                    return Err(exists(&self.destination));
                }
                Err(_) => {}
            }
        }
        let moved = fs::rename(&self.path, &self.destination).await;
        moved.map_err(Failure::local(format!("move the download to {}", self.destination.display())))?;
        Ok(self.destination.clone())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove, and a drop has nobody to tell about anything else.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn exists(path: &Path) -> Failure {
    usage(path, "exists; pass --force to replace it, or --output for another place")
}

fn usage(path: &Path, what: &str) -> Failure {
    Failure::Usage(format!("{} {what}", path.display()))
}
