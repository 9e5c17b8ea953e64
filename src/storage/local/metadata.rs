//! The metadata of objects: one extended attribute of the file, as JSON. It is in the same inode as the bytes, so it
//! needs no file of its own, and is durable with them. Blocks.

use std::{fs::File, io};

use rustix::{
    fs::{XattrFlags, fgetxattr, fsetxattr},
    io::Errno,
};

use super::super::ObjectMetadata;

/// The name of the attribute. Only names with this prefix are for users.
const ATTRIBUTE: &str = "user.strongroom";

/// The maximum length of the attribute. Longer ones do not fit into a block of common file systems.
const ATTRIBUTE_BYTES_MAX: usize = 3_500;

/// Writes the metadata of a new file. Entries that do not fit are dropped, the last ones first. A file system without
/// extended attributes drops all.
pub(super) fn write(file: &File, metadata: &[(String, String)]) -> io::Result<()> {
    let mut entries = metadata;
    while !entries.is_empty() {
        let text = serde_json::to_vec(entries)?;
        if text.len() <= ATTRIBUTE_BYTES_MAX {
            return match fsetxattr(file, ATTRIBUTE, &text, XattrFlags::empty()) {
                Err(Errno::NOTSUP | Errno::NOSPC | Errno::TOOBIG | Errno::PERM) => {
                    tracing::debug!("the file system of the store has no room for metadata of objects");
                    Ok(())
                }
                written => Ok(written?),
            };
        }
        entries = &entries[..entries.len() - 1];
    }
    Ok(())
}

/// Reads the metadata of an object. Returns none if it has none, or none that can be read.
pub(super) fn read(file: &File) -> io::Result<ObjectMetadata> {
    let mut buffer = vec![0; ATTRIBUTE_BYTES_MAX];
    let length = match fgetxattr(file, ATTRIBUTE, buffer.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => return Ok(ObjectMetadata::new()),
        Err(error) => return Err(error.into()),
    };
    // Another program may have written the attribute.
    Ok(serde_json::from_slice(buffer.get(..length).unwrap_or_default()).unwrap_or_default())
}
