//! The owner marker: a file that is written beside its place, synced, and renamed. Blocks.

use std::{fs, io, os::unix::fs::FileExt, path::Path};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    super::{MarkerWrite, StorageError, marker::marker_name},
    disk::{
        Disk, create_private_directories, create_private_file, map_io_error, remove_file, sync_directory,
    },
};

pub(super) fn read(disk: &Disk, prefix: &str) -> Result<Option<Bytes>, StorageError> {
    match fs::read(disk.objects.join(marker_name(prefix))) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(map_io_error(error, "read owner marker")),
    }
}

pub(super) fn write(
    disk: &Disk,
    prefix: &str,
    body: &[u8],
    write: MarkerWrite,
    id: Uuid,
) -> Result<(), StorageError> {
    let (path, unfinished) =
        (disk.objects.join(marker_name(prefix)), disk.unfinished.join(format!("{id}.owner")));
    let written = write_synced(disk, &path, &unfinished, body, write);
    let removed = remove_file(&unfinished);
    written.and(removed).map(|_| ()).map_err(|error| map_io_error(error, "write owner marker"))
}

fn write_synced(
    disk: &Disk,
    path: &Path,
    unfinished: &Path,
    body: &[u8],
    write: MarkerWrite,
) -> io::Result<()> {
    let directory = path.parent().unwrap_or(&disk.objects);
    create_private_directories(directory)?;
    let file = create_private_file(unfinished)?;
    file.write_all_at(body, 0)?;
    file.sync_all()?;
    match write {
        MarkerWrite::Create => fs::hard_link(unfinished, path)?,
        MarkerWrite::Replace => fs::rename(unfinished, path)?,
    }
    // The directories of the prefix may be new.
    directory.ancestors().take_while(|parent| parent.starts_with(&disk.objects)).try_for_each(sync_directory)
}
