//! The model: what a tenant has, in plain maps, and what each mutation may answer. It shares no code with the service.

use std::collections::BTreeMap;

use super::calls::{Answer, Call, Content};

const PART: usize = crate::harness::PART;
/// What an upload of unknown size reserves ahead.
const STEP: i64 = 4 * PART as i64;
const LEASE_SECONDS: i64 = 24 * 3600;
const TRASH_SECONDS: i64 = 30 * 24 * 3600;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) user: &'static str,
    pub(super) role: &'static str,
}

impl Who {
    fn is_admin(&self) -> bool {
        self.role == "admin"
    }
}

#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) owner: &'static str,
    pub(super) name: String,
    pub(super) versions: BTreeMap<i32, Content>,
    pub(super) current: i32,
    pub(super) last: i32,
    /// When it will be purged, in seconds.
    pub(super) purge_time: Option<i64>,
    pub(super) is_archived: bool,
    pub(super) etag: String,
}

impl File {
    fn bytes(&self) -> i64 {
        self.versions.values().map(|content| content.len as i64).sum()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) owner: &'static str,
    pub(super) name: String,
    pub(super) content: Content,
    pub(super) reserved: i64,
    pub(super) persisted: usize,
    /// When its lease runs out, in seconds.
    pub(super) until: i64,
}

/// What a tenant has.
#[derive(Debug, Clone)]
pub(super) struct Tenant {
    pub(super) organization: String,
    pub(super) trash_counts: bool,
    pub(super) limit: i64,
    pub(super) files: BTreeMap<String, File>,
    pub(super) uploads: BTreeMap<String, Upload>,
    pub(super) adrift: Vec<Adrift>,
}

/// What a crash left reserved for a stream that nobody can go on with.
#[derive(Debug, Clone)]
pub(super) struct Adrift {
    pub(super) bytes: i64,
    /// One, or none for a version.
    pub(super) files: i64,
    /// When its lease runs out, in seconds.
    pub(super) until: i64,
}

impl Tenant {
    pub(super) fn new(organization: String, trash_counts: bool, limit: i64) -> Self {
        let (files, uploads) = (BTreeMap::new(), BTreeMap::new());
        Self { organization, trash_counts, limit, files, uploads, adrift: Vec::new() }
    }

    fn charged(&self) -> impl Iterator<Item = &File> {
        self.files.values().filter(|file| file.purge_time.is_none() || self.trash_counts)
    }

    pub(super) fn used(&self) -> i64 {
        self.charged().map(File::bytes).sum()
    }

    pub(super) fn file_count(&self) -> i64 {
        self.charged().count() as i64
    }

    pub(super) fn reserved(&self) -> i64 {
        let open = self.uploads.values().map(|upload| upload.reserved);
        open.chain(self.adrift.iter().map(|adrift| adrift.bytes)).sum()
    }

    pub(super) fn reserved_count(&self) -> i64 {
        self.uploads.len() as i64 + self.adrift.iter().map(|adrift| adrift.files).sum::<i64>()
    }

    fn free(&self) -> i64 {
        self.limit - self.used() - self.reserved()
    }

    fn room(&self, bytes: i64) -> Result<(), &'static str> {
        if bytes <= self.free() { Ok(()) } else { Err("QUOTA_BYTES_EXCEEDED") }
    }

    /// A file that may be changed by whoever asks.
    fn mine(&self, who: &Who, file: &str) -> Result<&File, &'static str> {
        let file = self.files.get(file).ok_or("NOT_FOUND")?;
        if who.is_admin() || file.owner == who.user { Ok(file) } else { Err("NOT_ALLOWED") }
    }

    /// Whether a mutation is done, or the reason why it is refused.
    pub(super) fn expect(&self, who: &Who, call: &Call, now: i64) -> Result<(), &'static str> {
        match call {
            Call::Upload { content, .. } => self.room(content.len as i64),
            Call::Create { content, is_size_known, .. } => {
                self.room(if *is_size_known { content.len as i64 } else { 0 })
            }
            Call::Version { file, content, is_size_known } => {
                if *is_size_known {
                    self.room(content.len as i64)?;
                }
                live(self.mine(who, file)?)?;
                self.room(content.len as i64)
            }
            Call::Send { upload, from, upto, is_finished, .. } => {
                let upload = self.open(upload, now).filter(|upload| upload.owner == who.user);
                let upload = upload.ok_or("NOT_FOUND")?;
                if from == upto && !is_finished {
                    return Err("UPLOAD_NOT_FINISHED");
                }
                if self.sent(upload, *from, *upto).2 {
                    return Err("QUOTA_BYTES_EXCEEDED");
                }
                if *is_finished { Ok(()) } else { Err("UPLOAD_NOT_FINISHED") }
            }
            Call::Cancel { upload } => {
                let upload = self.open(upload, now);
                upload.filter(|upload| who.is_admin() || upload.owner == who.user).ok_or("NOT_FOUND")?;
                Ok(())
            }
            Call::Limit { .. } if !who.is_admin() => Err("NOT_ALLOWED"),
            Call::Limit { bytes } => {
                if self.used() + self.reserved() > *bytes {
                    Err("QUOTA_BELOW_USAGE")
                } else {
                    Ok(())
                }
            }
            Call::Delete { file } | Call::Purge { file } => self.mine(who, file).map(|_| ()),
            other => self.expect_of_file(who, other),
        }
    }

    fn expect_of_file(&self, who: &Who, call: &Call) -> Result<(), &'static str> {
        match call {
            Call::Undelete { file } => {
                let file = self.mine(who, file)?;
                let is_charged_anew = file.purge_time.is_some() && !self.trash_counts;
                if is_charged_anew { self.room(file.bytes()) } else { Ok(()) }
            }
            Call::Archive { file } | Call::Unarchive { file } => present(self.mine(who, file)?),
            Call::Rename { file, etag, .. } => {
                let file = self.mine(who, file)?;
                if !etag.is_empty() && *etag != file.etag {
                    return Err("ETAG_MISMATCH");
                }
                present(file)
            }
            Call::Restore { file, version } => {
                let file = self.mine(who, file)?;
                live(file)?;
                let content = file.versions.get(version).ok_or("NOT_FOUND")?;
                if *version == file.current {
                    return Err("VERSION_IS_CURRENT");
                }
                self.room(content.len as i64)
            }
            Call::DeleteVersion { file, version } => {
                let file = self.mine(who, file)?;
                present(file)?;
                if *version == file.current {
                    return Err("VERSION_IS_CURRENT");
                }
                file.versions.get(version).map(|_| ()).ok_or("NOT_FOUND")
            }
            Call::Copy { file, version, .. } => {
                let file = self.files.get(file).ok_or("NOT_FOUND")?;
                let version = if *version == 0 { file.current } else { *version };
                let content = file.versions.get(&version).ok_or("NOT_FOUND")?;
                live(file)?;
                self.room(content.len as i64)
            }
            Call::BatchDelete { files } => {
                let found: Vec<_> = files.iter().map(|file| self.mine(who, file)).collect();
                for reason in ["NOT_FOUND", "NOT_ALLOWED"] {
                    if found.iter().any(|found| matches!(found, Err(why) if *why == reason)) {
                        return Err(reason);
                    }
                }
                Ok(())
            }
            other => unreachable!("{other:?} is about no file"),
        }
    }

    /// An upload that can be gone on with.
    pub(super) fn open(&self, upload: &str, now: i64) -> Option<&Upload> {
        self.uploads.get(upload).filter(|upload| upload.until > now)
    }

    /// What bytes that are sent come to: what is reserved and persisted then, and whether the room ended before them.
    fn sent(&self, upload: &Upload, from: usize, upto: usize) -> (i64, usize, bool) {
        const CHUNK: usize = 40_000;
        let (mut reserved, mut free, mut at) = (upload.reserved, self.free(), from);
        while at < upto {
            let chunk_end = from + ((at - from) / CHUNK + 1) * CHUNK;
            let end = chunk_end.min((at / PART + 1) * PART).min(upto);
            let needed = end as i64 - reserved;
            if needed > 0 {
                let taken = if needed.max(STEP) <= free { needed.max(STEP) } else { needed };
                if taken > free {
                    return (reserved, (at / PART * PART).max(upload.persisted), true);
                }
                (reserved, free) = (reserved + taken, free - taken);
            }
            at = end;
        }
        (reserved, (upto / PART * PART).max(upload.persisted), false)
    }

    /// What a stream leaves behind that did not become a file.
    pub(super) fn paused(&mut self, call: &Call, now: i64) {
        let Call::Send { upload: id, from, upto, .. } = call else { return };
        let Some(upload) = self.uploads.get(id) else { return };
        let (reserved, persisted, _) = self.sent(upload, *from, *upto);
        let until = now + LEASE_SECONDS;
        let upload = Upload { reserved, persisted, until, ..upload.clone() };
        self.uploads.insert(id.clone(), upload);
    }

    /// Writes down what was done.
    pub(super) fn apply(&mut self, who: &Who, call: &Call, answer: &Answer, now: i64) {
        match call {
            Call::Upload { name, content, .. } => self.add(who.user, name, *content, answer),
            Call::Create { name, content, is_size_known } => {
                let reserved = if *is_size_known { content.len as i64 } else { 0 };
                let (name, until) = (name.clone(), now + LEASE_SECONDS);
                let upload =
                    Upload { owner: who.user, name, content: *content, reserved, persisted: 0, until };
                self.uploads.insert(answer.upload.as_ref().unwrap().id.clone(), upload);
            }
            Call::Send { upload, .. } => {
                let upload = self.uploads.remove(upload).unwrap();
                self.add(upload.owner, &upload.name, upload.content, answer);
            }
            Call::Cancel { upload } => {
                self.uploads.remove(upload).unwrap();
            }
            Call::Limit { bytes } => self.limit = *bytes,
            Call::Copy { file, version, name } => {
                let source = &self.files[file];
                let version = if *version == 0 { source.current } else { *version };
                let content = source.versions[&version];
                self.add(who.user, name, content, answer);
            }
            Call::Purge { file } => {
                self.files.remove(file).unwrap();
            }
            other => self.change(other, now),
        }
        for told in &answer.files {
            self.files.get_mut(&told.id).unwrap().etag = told.etag.clone();
        }
    }

    fn change(&mut self, call: &Call, now: i64) {
        let ids = match call {
            Call::BatchDelete { files } => files.as_slice(),
            Call::Version { file, .. }
            | Call::Delete { file }
            | Call::Undelete { file }
            | Call::Archive { file }
            | Call::Unarchive { file }
            | Call::Rename { file, .. }
            | Call::Restore { file, .. }
            | Call::DeleteVersion { file, .. } => std::slice::from_ref(file),
            other => unreachable!("{other:?} changes no file"),
        };
        for id in ids {
            let file = self.files.get_mut(id).unwrap();
            match call {
                Call::Delete { .. } | Call::BatchDelete { .. } => {
                    file.purge_time.get_or_insert(now + TRASH_SECONDS);
                }
                Call::Undelete { .. } => file.purge_time = None,
                Call::Archive { .. } => file.is_archived = true,
                Call::Unarchive { .. } => file.is_archived = false,
                Call::Rename { name, .. } => file.name.clone_from(name),
                Call::DeleteVersion { version, .. } => {
                    file.versions.remove(version).unwrap();
                }
                Call::Version { content, .. } => file.put(*content),
                Call::Restore { version, .. } => file.put(file.versions[version]),
                other => unreachable!("{other:?} changes no file"),
            }
        }
    }

    /// A new file, as an answer names it.
    pub(super) fn add(&mut self, owner: &'static str, name: &str, content: Content, answer: &Answer) {
        let told = &answer.files[0];
        let file = File {
            owner,
            name: name.to_owned(),
            versions: BTreeMap::from([(1, content)]),
            current: 1,
            last: 1,
            purge_time: None,
            is_archived: false,
            etag: told.etag.clone(),
        };
        assert!(self.files.insert(told.id.clone(), file).is_none(), "file {} comes twice", told.id);
    }

    /// What a round of background work does.
    pub(super) fn round(&mut self, now: i64) {
        self.files.retain(|_, file| file.purge_time.is_none_or(|time| time > now));
        self.uploads.retain(|_, upload| upload.until > now);
        self.adrift.retain(|adrift| adrift.until > now);
    }
}

impl File {
    fn put(&mut self, content: Content) {
        self.last += 1;
        self.current = self.last;
        self.versions.insert(self.last, content);
    }
}

fn present(file: &File) -> Result<(), &'static str> {
    if file.purge_time.is_some() { Err("FILE_DELETED") } else { Ok(()) }
}

fn live(file: &File) -> Result<(), &'static str> {
    present(file)?;
    if file.is_archived { Err("FILE_NOT_AVAILABLE") } else { Ok(()) }
}
