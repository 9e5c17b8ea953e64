//! Listings. The walk visits keys in bytewise order and enters only directories that can contain matches.
//! Blocks.

use std::{
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

use super::{
    super::{ListPage, MultipartInfo, MultipartPage, ObjectInfo, StorageError},
    disk::{Disk, UnfinishedId, map_io_error},
};
use crate::{
    domain::{
        clock::Timestamp,
        object_key::{OBJECT_KEY_LENGTH_BYTES_MAX, ObjectKey},
    },
    storage::MultipartId,
};

pub(super) fn list_objects(
    disk: &Disk,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: usize,
) -> Result<ListPage, StorageError> {
    let after = after.map_or("", ObjectKey::as_str);
    let mut walk =
        Walk { root: &disk.objects, prefix, after, wanted: limit.saturating_add(1), found: Vec::new() };
    walk.visit("").map_err(|error| map_io_error(error, "list objects"))?;
    let mut objects = walk.found;
    let is_last = objects.len() <= limit;
    objects.truncate(limit);
    Ok(ListPage { objects, is_last })
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: &'a str,
    /// The page length plus one, to detect whether the page is the last.
    wanted: usize,
    found: Vec<ObjectInfo>,
}

impl Walk<'_> {
    /// Visits a directory. `directory` is empty or ends with a slash, as in the keys below it.
    fn visit(&mut self, directory: &str) -> io::Result<()> {
        for name in self.list_names(directory)? {
            if self.found.len() >= self.wanted {
                break;
            }
            if name.ends_with('/') {
                self.visit(&name)?;
            } else if let Ok(key) = ObjectKey::parse(&name) {
                self.add(key)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, key: ObjectKey) -> io::Result<()> {
        match fs::symlink_metadata(self.root.join(key.as_str())) {
            Ok(metadata) => {
                let modify_time = Timestamp::from(metadata.modified()?);
                self.found.push(ObjectInfo { key, size_bytes: metadata.len(), modify_time });
                Ok(())
            }
            // Deleted during the walk.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the matching names of a directory in order. Keeps no more files than the page can need.
    fn list_names(&self, directory: &str) -> io::Result<Vec<String>> {
        let (mut files, mut names) = (Vec::new(), Vec::new());
        let kept = self.wanted.saturating_sub(self.found.len());
        for entry in entries(&self.root.join(directory))? {
            let entry = entry?;
            // A name that is not UTF-8 is not a key.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{directory}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                // The slash is part of the sort order: `a-b/c` precedes `a/c`.
                names.extend(Some(name + "/").filter(|name| self.may_contain_matches(name)));
            } else if kind.is_file() && name.starts_with(self.prefix) && name.as_str() > self.after {
                files.push(name);
                if files.len() >= kept.saturating_mul(2) {
                    keep_smallest(&mut files, kept);
                }
            }
        }
        keep_smallest(&mut files, kept);
        names.append(&mut files);
        names.sort_unstable();
        Ok(names)
    }

    fn may_contain_matches(&self, directory: &str) -> bool {
        let in_prefix = directory.starts_with(self.prefix) || self.prefix.starts_with(directory);
        let not_passed = directory > self.after || self.after.starts_with(directory);
        in_prefix && not_passed && directory.len() <= OBJECT_KEY_LENGTH_BYTES_MAX
    }
}

fn keep_smallest<T: Ord>(items: &mut Vec<T>, count: usize) {
    if count > 0 && count < items.len() {
        items.select_nth_unstable(count - 1);
    }
    items.truncate(count);
}

/// Lists a directory. A missing directory is empty.
fn entries(path: &Path) -> io::Result<Box<dyn Iterator<Item = io::Result<DirEntry>>>> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(Box::new(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(std::iter::empty())),
        Err(error) => Err(error),
    }
}

pub(super) fn list_unfinished(
    disk: &Disk,
    prefix: &str,
    after: Option<&MultipartInfo>,
    limit: usize,
) -> Result<MultipartPage, StorageError> {
    let at = |error| map_io_error(error, "list multipart uploads");
    let mut found = Vec::new();
    let wanted = limit.saturating_add(1);
    for entry in entries(&disk.unfinished).map_err(at)? {
        let entry = entry.map_err(at)?;
        let Some((key, id)) = parse_file_name(&entry) else { continue };
        let follows = after.is_none_or(|after| (&key, &id.to_multipart_id()) > (&after.key, &after.id));
        if follows && key.as_str().starts_with(prefix) {
            found.push(Unfinished { key, id: id.to_multipart_id(), parsed_id: id, path: entry.path() });
            if found.len() >= wanted.saturating_mul(2) {
                keep_smallest_by_name(&mut found, wanted);
            }
        }
    }
    keep_smallest_by_name(&mut found, wanted);
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let multiparts = found.into_iter().filter_map(|unfinished| {
        let start_time = unfinished.start_time().map_err(at).transpose()?;
        Some(start_time.map(|start_time| MultipartInfo {
            key: unfinished.key,
            id: unfinished.id,
            start_time,
        }))
    });
    Ok(MultipartPage { multiparts: multiparts.collect::<Result<_, _>>()?, is_last })
}

struct Unfinished {
    key: ObjectKey,
    id: MultipartId,
    parsed_id: UnfinishedId,
    path: PathBuf,
}

/// Keeps the smallest `count` entries, sorted by key and id.
fn keep_smallest_by_name(found: &mut Vec<Unfinished>, count: usize) {
    found.sort_unstable_by(|left, right| (&left.key, &left.id).cmp(&(&right.key, &right.id)));
    found.truncate(count);
}

fn parse_file_name(entry: &DirEntry) -> Option<(ObjectKey, UnfinishedId)> {
    let name = entry.file_name().into_string().ok()?;
    let (id, key) = name.split_once('~')?;
    Some((ObjectKey::parse(&key.replace('~', "/")).ok()?, UnfinishedId::parse(&MultipartId::new(id))?))
}

impl Unfinished {
    /// Returns the time in the id, which was generated when the upload was started. If the id contains no
    /// time, returns the time of the last write, or `None` if the upload ended in the meantime.
    fn start_time(&self) -> io::Result<Option<Timestamp>> {
        let generated = self.parsed_id.uuid.get_timestamp().map(|time| time.to_unix());
        if let Some((seconds, nanos)) = generated
            && let Some(time) =
                i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_timestamp(seconds, nanos))
        {
            return Ok(Some(time));
        }
        match fs::symlink_metadata(&self.path).and_then(|metadata| metadata.modified()) {
            Ok(modified) => Ok(Some(Timestamp::from(modified))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
