//! The model: the state of a tenant in plain maps, and the expected outcome of each mutation. It shares no
//! code with the service.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use super::{
    calls::{Call, Content, Response},
    sharing::Link,
};

const PART: usize = crate::harness::PART;
/// The bytes that an upload of unknown size reserves at a time.
const RESERVATION_STEP_BYTES: i64 = 4 * PART as i64;
const LEASE_SECONDS: i64 = 24 * 3600;
const TRASH_SECONDS: i64 = 30 * 24 * 3600;

/// A user who makes calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) user: &'static str,
    pub(super) role: &'static str,
}

impl Person {
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
    /// The highest version number so far, even if that version was deleted.
    pub(super) last: i32,
    /// Unix time in seconds; set while the file is in the trash.
    pub(super) purge_time: Option<i64>,
    pub(super) is_archived: bool,
    /// The users with a grant, and whether it permits the deletion.
    pub(super) grants: BTreeMap<&'static str, bool>,
    pub(super) etag: String,
}

impl File {
    fn total_bytes(&self) -> i64 {
        self.versions.values().map(|content| content.len as i64).sum()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) owner: &'static str,
    pub(super) name: String,
    pub(super) content: Content,
    pub(super) reserved_bytes: i64,
    pub(super) persisted_bytes: usize,
    /// The number of parts that renewed the lease. Only more parts renew it again.
    pub(super) renewed_part_count: usize,
    /// Unix time in seconds.
    pub(super) lease_expire_time: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Tenant {
    pub(super) organization: String,
    pub(super) trash_counts: bool,
    pub(super) limit_bytes: i64,
    pub(super) files: BTreeMap<String, File>,
    pub(super) uploads: BTreeMap<String, Upload>,
    pub(super) orphaned_reservations: Vec<OrphanedReservation>,
    /// The amounts of all entries of each user with credits.
    pub(super) credits: BTreeMap<&'static str, Vec<i64>>,
    /// The links to files, by the id of the share.
    pub(super) links: BTreeMap<String, Link>,
    /// The bytes of purged files that are not deleted yet, as of the last comparison of the quota. Not predicted,
    /// because it depends on the objects that versions share; `fsck` checks it.
    pub(super) pending_deletion_bytes: Arc<AtomicI64>,
}

/// A reservation of a stream that crashed and cannot be resumed. It is released when its lease expires.
#[derive(Debug, Clone)]
pub(super) struct OrphanedReservation {
    pub(super) bytes: i64,
    /// 1 for a new file, 0 for a version.
    pub(super) files: i64,
    /// Unix time in seconds.
    pub(super) lease_expire_time: i64,
}

impl Tenant {
    pub(super) fn new(organization: String, trash_counts: bool, limit_bytes: i64) -> Self {
        let (files, uploads) = (BTreeMap::new(), BTreeMap::new());
        Self {
            organization,
            trash_counts,
            limit_bytes,
            files,
            uploads,
            orphaned_reservations: Vec::new(),
            credits: BTreeMap::new(),
            links: BTreeMap::new(),
            pending_deletion_bytes: Arc::default(),
        }
    }

    /// Returns the sum of the entries of a user.
    pub(super) fn credits_of(&self, user: &str) -> i64 {
        self.credits.get(user).map_or(0, |amounts| amounts.iter().sum())
    }

    fn charged_files(&self) -> impl Iterator<Item = &File> {
        self.files.values().filter(|file| file.purge_time.is_none() || self.trash_counts)
    }

    pub(super) fn used_bytes(&self) -> i64 {
        self.charged_files().map(File::total_bytes).sum()
    }

    pub(super) fn file_count(&self) -> i64 {
        self.charged_files().count() as i64
    }

    pub(super) fn reserved_bytes(&self) -> i64 {
        let open = self.uploads.values().map(|upload| upload.reserved_bytes);
        open.chain(self.orphaned_reservations.iter().map(|orphaned| orphaned.bytes)).sum()
    }

    pub(super) fn reserved_file_count(&self) -> i64 {
        self.uploads.len() as i64
            + self.orphaned_reservations.iter().map(|orphaned| orphaned.files).sum::<i64>()
    }

    fn free_bytes(&self) -> i64 {
        let free_bytes = self.limit_bytes - self.used_bytes() - self.reserved_bytes();
        // Bytes that are pending deletion count above the limit of the quota.
        let excess_bytes = self.pending_deletion_bytes.load(Ordering::Relaxed) - self.limit_bytes;
        free_bytes - excess_bytes.clamp(0, free_bytes.max(0))
    }

    fn check_quota(&self, bytes: i64) -> Result<(), &'static str> {
        if bytes <= self.free_bytes() { Ok(()) } else { Err("QUOTA_BYTES_EXCEEDED") }
    }

    /// Returns the file, or the reason why this person may not change it.
    pub(super) fn find_changeable(&self, person: &Person, file: &str) -> Result<&File, &'static str> {
        let file = self.files.get(file).ok_or("NOT_FOUND")?;
        if person.is_admin() || file.owner == person.user { Ok(file) } else { Err("NOT_ALLOWED") }
    }

    /// Returns the file, or the reason why this person may not move it to the trash.
    fn find_deletable(&self, person: &Person, file: &str) -> Result<&File, &'static str> {
        let is_granted = |file: &&File| file.grants.get(person.user).copied().unwrap_or_default();
        match self.files.get(file).filter(is_granted) {
            Some(file) => Ok(file),
            None => self.find_changeable(person, file),
        }
    }

    /// Returns the expected outcome of a mutation: success, or the reason of the error.
    pub(super) fn expected_outcome(
        &self,
        person: &Person,
        call: &Call,
        now: i64,
    ) -> Result<(), &'static str> {
        match call {
            Call::Upload { content, .. } => self.check_quota(content.len as i64),
            Call::CreateUpload { content, is_size_known, .. } => {
                self.check_quota(if *is_size_known { content.len as i64 } else { 0 })
            }
            Call::UploadVersion { file, content, is_size_known } => {
                if *is_size_known {
                    self.check_quota(content.len as i64)?;
                }
                check_available(self.find_changeable(person, file)?)?;
                self.check_quota(content.len as i64)
            }
            Call::SendBytes { upload, from, to, is_finished, .. } => {
                let upload = self.open_upload(upload, now).filter(|upload| upload.owner == person.user);
                let upload = upload.ok_or("NOT_FOUND")?;
                if from == to && !is_finished {
                    return Err("UPLOAD_NOT_FINISHED");
                }
                if self.predict_send(upload, *from, *to).is_quota_exceeded {
                    return Err("QUOTA_BYTES_EXCEEDED");
                }
                if *is_finished { Ok(()) } else { Err("UPLOAD_NOT_FINISHED") }
            }
            Call::CancelUpload { upload } => {
                let upload = self.open_upload(upload, now);
                upload
                    .filter(|upload| person.is_admin() || upload.owner == person.user)
                    .ok_or("NOT_FOUND")?;
                Ok(())
            }
            // Only the tokens of admins have the scope for credits.
            Call::SetLimit { .. } | Call::ChangeCredits { .. } if !person.is_admin() => Err("NOT_ALLOWED"),
            Call::ChangeCredits { user, amount } if self.credits_of(user) + amount < 0 => {
                Err("CREDITS_EXHAUSTED")
            }
            Call::ChangeCredits { .. } => Ok(()),
            Call::SetLimit { bytes } => {
                if self.used_bytes() + self.reserved_bytes() > *bytes {
                    Err("QUOTA_BELOW_USAGE")
                } else {
                    Ok(())
                }
            }
            Call::Delete { file } => self.find_deletable(person, file).map(|_| ()),
            Call::Purge { file } => self.find_changeable(person, file).map(|_| ()),
            Call::Share { .. } | Call::RevokeShare { .. } | Call::Grant { .. } | Call::RevokeGrant { .. } => {
                self.expected_sharing_outcome(person, call)
            }
            other => self.expected_file_outcome(person, other),
        }
    }

    fn expected_file_outcome(&self, person: &Person, call: &Call) -> Result<(), &'static str> {
        match call {
            Call::Undelete { file } => {
                let file = self.find_changeable(person, file)?;
                let is_charged_again = file.purge_time.is_some() && !self.trash_counts;
                if is_charged_again { self.check_quota(file.total_bytes()) } else { Ok(()) }
            }
            Call::Archive { file } | Call::Unarchive { file } => {
                check_not_deleted(self.find_changeable(person, file)?)
            }
            Call::Rename { file, etag, .. } => {
                let file = self.find_changeable(person, file)?;
                if !etag.is_empty() && *etag != file.etag {
                    return Err("ETAG_MISMATCH");
                }
                check_not_deleted(file)
            }
            Call::RestoreVersion { file, version } => {
                let file = self.find_changeable(person, file)?;
                check_available(file)?;
                let content = file.versions.get(version).ok_or("NOT_FOUND")?;
                if *version == file.current {
                    return Err("VERSION_IS_CURRENT");
                }
                self.check_quota(content.len as i64)
            }
            Call::DeleteVersion { file, version } => {
                let file = self.find_changeable(person, file)?;
                check_not_deleted(file)?;
                if *version == file.current {
                    return Err("VERSION_IS_CURRENT");
                }
                file.versions.get(version).map(|_| ()).ok_or("NOT_FOUND")
            }
            Call::Copy { file, version, .. } => {
                let file = self.files.get(file).ok_or("NOT_FOUND")?;
                let version = if *version == 0 { file.current } else { *version };
                let content = file.versions.get(&version).ok_or("NOT_FOUND")?;
                check_available(file)?;
                self.check_quota(content.len as i64)
            }
            Call::BatchDelete { files } => {
                let found: Vec<_> = files.iter().map(|file| self.find_deletable(person, file)).collect();
                for reason in ["NOT_FOUND", "NOT_ALLOWED"] {
                    if found.iter().any(|found| matches!(found, Err(why) if *why == reason)) {
                        return Err(reason);
                    }
                }
                Ok(())
            }
            other => unreachable!("{other:?} names no file"),
        }
    }

    /// Returns the upload if it can be resumed.
    pub(super) fn open_upload(&self, upload: &str, now: i64) -> Option<&Upload> {
        self.uploads.get(upload).filter(|upload| upload.lease_expire_time > now)
    }

    /// Predicts the state of an upload after the bytes from `from` to `to` were sent to it.
    fn predict_send(&self, upload: &Upload, from: usize, to: usize) -> SendPrediction {
        const CHUNK_SIZE: usize = 40_000;
        let (mut reserved_bytes, mut free, mut at) = (upload.reserved_bytes, self.free_bytes(), from);
        while at < to {
            let chunk_end = from + ((at - from) / CHUNK_SIZE + 1) * CHUNK_SIZE;
            let end = chunk_end.min((at / PART + 1) * PART).min(to);
            let needed = end as i64 - reserved_bytes;
            if needed > 0 {
                let step = needed.max(RESERVATION_STEP_BYTES);
                let added = if step <= free { step } else { needed };
                if added > free {
                    let persisted_bytes = (at / PART * PART).max(upload.persisted_bytes);
                    return SendPrediction { reserved_bytes, persisted_bytes, is_quota_exceeded: true };
                }
                (reserved_bytes, free) = (reserved_bytes + added, free - added);
            }
            at = end;
        }
        let persisted_bytes = (to / PART * PART).max(upload.persisted_bytes);
        SendPrediction { reserved_bytes, persisted_bytes, is_quota_exceeded: false }
    }

    /// Records the state of an upload whose stream ended without a file.
    pub(super) fn pause_upload(&mut self, call: &Call, now: i64) {
        let Call::SendBytes { upload: id, from, to, .. } = call else { return };
        let Some(upload) = self.uploads.get(id) else { return };
        let SendPrediction { reserved_bytes, persisted_bytes, .. } = self.predict_send(upload, *from, *to);
        let mut upload = Upload { reserved_bytes, persisted_bytes, ..upload.clone() };
        let part_count = persisted_bytes.div_ceil(PART);
        if part_count > upload.renewed_part_count {
            (upload.renewed_part_count, upload.lease_expire_time) = (part_count, now + LEASE_SECONDS);
        }
        self.uploads.insert(id.clone(), upload);
    }

    /// Records a mutation that succeeded.
    pub(super) fn apply(&mut self, person: &Person, call: &Call, response: &Response, now: i64) {
        match call {
            Call::Upload { name, content, .. } => self.add_file(person.user, name, *content, response),
            Call::CreateUpload { name, content, is_size_known } => {
                let reserved_bytes = if *is_size_known { content.len as i64 } else { 0 };
                let (name, lease_expire_time) = (name.clone(), now + LEASE_SECONDS);
                let upload = Upload {
                    owner: person.user,
                    name,
                    content: *content,
                    reserved_bytes,
                    persisted_bytes: 0,
                    renewed_part_count: 0,
                    lease_expire_time,
                };
                self.uploads.insert(response.upload.as_ref().unwrap().id.clone(), upload);
            }
            Call::SendBytes { upload, .. } => {
                let upload = self.uploads.remove(upload).unwrap();
                self.add_file(upload.owner, &upload.name, upload.content, response);
            }
            Call::CancelUpload { upload } => {
                self.uploads.remove(upload).unwrap();
            }
            Call::SetLimit { bytes } => self.limit_bytes = *bytes,
            Call::ChangeCredits { user, amount } => self.credits.entry(user).or_default().push(*amount),
            Call::Copy { file, version, name } => {
                let source = &self.files[file];
                let version = if *version == 0 { source.current } else { *version };
                let content = source.versions[&version];
                self.add_file(person.user, name, content, response);
            }
            Call::Purge { file } => {
                self.files.remove(file).unwrap();
                self.remove_links_of_purged_files();
            }
            Call::Share { .. } | Call::RevokeShare { .. } | Call::Grant { .. } | Call::RevokeGrant { .. } => {
                self.apply_sharing(call, response);
            }
            other => self.change_files(other, now),
        }
        for returned in &response.files {
            self.files.get_mut(&returned.id).unwrap().etag = returned.etag.clone();
        }
    }

    fn change_files(&mut self, call: &Call, now: i64) {
        let ids = match call {
            Call::BatchDelete { files } => files.as_slice(),
            Call::UploadVersion { file, .. }
            | Call::Delete { file }
            | Call::Undelete { file }
            | Call::Archive { file }
            | Call::Unarchive { file }
            | Call::Rename { file, .. }
            | Call::RestoreVersion { file, .. }
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
                Call::UploadVersion { content, .. } => file.add_version(*content),
                Call::RestoreVersion { version, .. } => file.add_version(file.versions[version]),
                other => unreachable!("{other:?} changes no file"),
            }
        }
    }

    /// Records a new file with the id and etag of the response.
    pub(super) fn add_file(
        &mut self,
        owner: &'static str,
        name: &str,
        content: Content,
        response: &Response,
    ) {
        let returned = &response.files[0];
        let file = File {
            owner,
            name: name.to_owned(),
            versions: BTreeMap::from([(1, content)]),
            current: 1,
            last: 1,
            purge_time: None,
            is_archived: false,
            grants: BTreeMap::new(),
            etag: returned.etag.clone(),
        };
        assert!(
            self.files.insert(returned.id.clone(), file).is_none(),
            "file {} was created twice",
            returned.id
        );
    }

    fn remove_links_of_purged_files(&mut self) {
        self.links.retain(|_, link| self.files.contains_key(&link.file));
    }

    /// Records the effects of a round of background work.
    pub(super) fn apply_worker_round(&mut self, now: i64) {
        self.files.retain(|_, file| file.purge_time.is_none_or(|time| time > now));
        self.remove_links_of_purged_files();
        self.uploads.retain(|_, upload| upload.lease_expire_time > now);
        self.orphaned_reservations.retain(|orphaned| orphaned.lease_expire_time > now);
    }
}

/// The predicted state of an upload after bytes were sent to it.
struct SendPrediction {
    reserved_bytes: i64,
    persisted_bytes: usize,
    is_quota_exceeded: bool,
}

impl File {
    fn add_version(&mut self, content: Content) {
        self.last += 1;
        self.current = self.last;
        self.versions.insert(self.last, content);
    }
}

pub(super) fn check_not_deleted(file: &File) -> Result<(), &'static str> {
    if file.purge_time.is_some() { Err("FILE_DELETED") } else { Ok(()) }
}

pub(super) fn check_available(file: &File) -> Result<(), &'static str> {
    check_not_deleted(file)?;
    if file.is_archived { Err("FILE_NOT_AVAILABLE") } else { Ok(()) }
}
