//! Compares database and store and reports every starred invariant that does not hold. Reads only and changes nothing, but
//! for the states of versions, where it is asked to repair them: what is missing or damaged moves to ERROR, and what was and
//! is whole again moves back.
//!
//! Needs no [`App`](crate::app::App): it must also run beside a service that cannot start.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;

use super::{
    damage::{self, Suspicion},
    sample::{Depth, Sample},
};
use crate::{
    app::Error,
    db::{
        Database, content_states,
        fsck::{self, CheckedBlob},
        sweep_candidates::{self, Candidate, Verdict},
    },
    domain::{
        checksum::{Crc64, Crc64Hasher},
        clock::{Clock, IdSource, Timestamp},
        digest::{Digest, Hasher},
        ids::TenantId,
        object_key::ObjectKey,
    },
    storage::{MultipartInfo, ObjectStorage, StorageErrorKind, Stores},
};

/// How many rows or objects are looked at in one go.
const BATCH: usize = 500;

/// What to check with.
pub struct Fsck {
    /// The database.
    pub db: Database,
    /// The stores of all providers.
    pub stores: Stores,
    /// Tells the age of objects.
    pub clock: Arc<dyn Clock>,
    /// Chooses what is read.
    pub ids: Arc<dyn IdSource>,
    /// How old an object or an unfinished upload without a row may be.
    pub grace: Duration,
    /// What our keys begin with; what begins otherwise is somebody else's.
    pub key_prefix: String,
    /// How many blobs are read and hashed. All are looked for.
    pub depth: Depth,
    /// Whether the states of versions are made to say what was found.
    pub is_repairing: bool,
}

/// A promise that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// The number of the invariant in the design.
    pub invariant: u8,
    /// Whose data.
    pub tenant: TenantId,
    /// Where: a key, a file, a row.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

/// What was found.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Report {
    /// Promises that do not hold.
    pub violations: Vec<Violation>,
    /// How many blobs were looked for: there, with the recorded size.
    pub blobs: u64,
    /// How many of them were read and hashed.
    pub hashed_blobs: u64,
    /// How many bytes that were.
    pub hashed_bytes: u64,
    /// How many versions were moved to ERROR.
    pub marked_versions: u64,
    /// How many versions were moved out of ERROR.
    pub repaired_versions: u64,
    /// How many objects the store listed.
    pub objects: u64,
    /// Objects without a row that are younger than the grace period: left by a crash, or being uploaded now.
    pub young_objects: u64,
    /// Objects and unfinished uploads of another prefix, or of a tenant that this database does not know.
    pub foreign: u64,
}

/// What goes on, for whoever shows progress.
pub trait Progress: Send {
    /// So many blobs and bytes were checked so far.
    fn checked(&mut self, report: &Report);
}

impl Fsck {
    /// Checks everything.
    ///
    /// # Errors
    /// When database or store cannot be read: then nothing is known, and nothing is reported as clean.
    pub async fn run(&self, progress: &mut dyn Progress) -> Result<Report, Error> {
        let mut report = Report::default();
        self.check_blobs(&mut report, progress).await?;
        for store in self.stores.iter() {
            self.check_objects(store.as_ref(), &mut report).await?;
            self.check_multiparts(store.as_ref(), &mut report).await?;
        }
        self.check_books(&mut report).await?;
        Ok(report)
    }

    /// Invariant 1: an available version has its bytes in the store with the recorded size, SHA-256 and CRC-64.
    async fn check_blobs(&self, report: &mut Report, progress: &mut dyn Progress) -> Result<(), Error> {
        let mut tx = self.db.system_tx().await?;
        let total = fsck::count_needed_blobs(&mut tx).await?;
        tx.commit().await?;
        let mut sample = Sample::of(self.depth, total, Arc::clone(&self.ids));
        let mut after = None;
        loop {
            let mut tx = self.db.system_tx().await?;
            let batch = fsck::blobs(&mut tx, after, i64::try_from(BATCH).unwrap_or(i64::MAX)).await?;
            tx.commit().await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = Some((last.tenant, last.blob.id));
            for checked in batch.iter().filter(|checked| self.is_repairing && checked.is_lost) {
                self.restore_if_whole(checked, report).await?;
            }
            for checked in batch.iter().filter(|checked| checked.is_needed) {
                // What was stored since the count is not in the sample; a deep check takes it all the same.
                let is_read = sample.takes_next() || self.depth == Depth::Everything;
                if let Some(what) = self.check_blob(checked, is_read, report).await? {
                    report.violate(1, checked.tenant, checked.blob.key.as_str(), what);
                    if self.is_repairing {
                        self.mark_if_lost(checked, report).await?;
                    }
                }
                progress.checked(report);
            }
        }
    }

    /// What was found is looked at once more before it is written down.
    async fn mark_if_lost(&self, checked: &CheckedBlob, report: &mut Report) -> Result<(), Error> {
        let Ok(store) = self.stores.of(&checked.blob.provider) else { return Ok(()) };
        let confirmed = damage::confirm(store.as_ref(), &checked.blob, Suspicion::Checksum).await?;
        if let Some(reason) = confirmed {
            report.marked_versions +=
                damage::mark(&self.db, checked.tenant, &checked.blob, reason).await? as u64;
        }
        Ok(())
    }

    /// What was missing or damaged is read again, all of it.
    async fn restore_if_whole(&self, checked: &CheckedBlob, report: &mut Report) -> Result<(), Error> {
        let Ok(store) = self.stores.of(&checked.blob.provider) else { return Ok(()) };
        let is_whole = match damage::is_whole(store.as_ref(), &checked.blob).await {
            Ok(is_whole) => is_whole == Some(true),
            Err(error)
                if matches!(error.kind, StorageErrorKind::NotFound | StorageErrorKind::InvalidInput) =>
            {
                false
            }
            Err(error) => return Err(error.into()),
        };
        if is_whole {
            let mut tx = self.db.system_tx().await?;
            let moved = content_states::mark_whole(&mut tx, checked.tenant, checked.blob.id).await?;
            tx.commit().await?;
            report.repaired_versions += moved as u64;
        }
        Ok(())
    }

    async fn check_blob(
        &self,
        checked: &CheckedBlob,
        is_read: bool,
        report: &mut Report,
    ) -> Result<Option<String>, Error> {
        let blob = &checked.blob;
        report.blobs += 1;
        let store = match self.stores.of(&blob.provider) {
            Ok(store) => store.as_ref(),
            Err(unknown) => return Ok(Some(unknown.to_string())),
        };
        let size = match store.head(&blob.key).await {
            Ok(info) => info.size_bytes,
            Err(error) if error.kind == StorageErrorKind::NotFound => {
                return Ok(Some("is missing".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        if size != blob.size_bytes {
            return Ok(Some(format!("has {size} bytes, {} are recorded", blob.size_bytes)));
        }
        if !is_read {
            return Ok(None);
        }
        report.hashed_blobs += 1;
        report.hashed_bytes += size;
        let Sums { sha256, crc64nvme } = sums(store, &blob.key, size).await?;
        if sha256 != blob.sha256 {
            return Ok(Some(format!("has the SHA-256 {sha256}, {} is recorded", blob.sha256)));
        }
        Ok((crc64nvme != blob.crc64nvme)
            .then(|| format!("has the CRC-64 {crc64nvme}, {} is recorded", blob.crc64nvme)))
    }

    /// Invariant 2: an object in the store belongs to one blob row or to an open upload, or is young.
    async fn check_objects(&self, store: &dyn ObjectStorage, report: &mut Report) -> Result<(), Error> {
        let mut after: Option<ObjectKey> = None;
        loop {
            let page = store.list("", after.as_ref(), BATCH).await?;
            let keys: Vec<&ObjectKey> = page.objects.iter().map(|object| &object.key).collect();
            let mut tx = self.db.system_tx().await?;
            let verdicts = fsck::judge(&mut tx, &keys).await?;
            tx.commit().await?;
            for (object, verdict) in page.objects.iter().zip(verdicts) {
                report.objects += 1;
                if self.is_foreign(&object.key, verdict) {
                    report.foreign += 1;
                    continue;
                }
                if verdict == Verdict::Owned {
                    continue;
                }
                let age = self.age(object.modify_time);
                if age < self.grace {
                    report.young_objects += 1;
                } else {
                    let what = format!("belongs to no row and is {} seconds old", age.as_secs());
                    report.violate(2, object.key.tenant(), object.key.as_str(), what);
                }
            }
            after = page.objects.last().map(|object| object.key.clone());
            if page.is_last || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Invariant 2, of what was never finished: it belongs to an upload, or is young.
    async fn check_multiparts(&self, store: &dyn ObjectStorage, report: &mut Report) -> Result<(), Error> {
        let mut after: Option<MultipartInfo> = None;
        loop {
            let page = store.list_multiparts("", after.as_ref(), BATCH).await?;
            let unfinished = |multipart: &MultipartInfo| Candidate {
                key: multipart.key.clone(),
                multipart_id: Some(multipart.id.as_str().to_owned()),
                size_bytes: 0,
            };
            let candidates: Vec<Candidate> = page.multiparts.iter().map(unfinished).collect();
            let mut tx = self.db.system_tx().await?;
            let verdicts = sweep_candidates::judge(&mut tx, store.provider(), &candidates).await?;
            tx.commit().await?;
            for (multipart, verdict) in page.multiparts.iter().zip(verdicts) {
                if self.is_foreign(&multipart.key, verdict) {
                    report.foreign += 1;
                    continue;
                }
                let age = self.age(multipart.start_time);
                if verdict != Verdict::Owned && age >= self.grace {
                    let what = format!(
                        "the unfinished upload {} belongs to no row and is {} seconds old",
                        multipart.id,
                        age.as_secs()
                    );
                    report.violate(2, multipart.key.tenant(), multipart.key.as_str(), what);
                }
            }
            after = page.multiparts.into_iter().next_back();
            if page.is_last || after.is_none() {
                return Ok(());
            }
        }
    }

    /// What others keep in a store that is shared is none of our business.
    fn is_foreign(&self, key: &ObjectKey, verdict: Verdict) -> bool {
        verdict == Verdict::Foreign || (verdict != Verdict::Owned && key.prefix() != self.key_prefix)
    }

    fn age(&self, since: Timestamp) -> Duration {
        (self.clock.now() - since).to_std().unwrap_or_default()
    }

    /// Invariant 5: the quota's books add up. Invariant 11: every version has its audit entry.
    async fn check_books(&self, report: &mut Report) -> Result<(), Error> {
        let mut tx = self.db.system_tx().await?;
        for drift in fsck::quota_drifts(&mut tx).await? {
            let what = format!(
                "used {} of {} charged bytes, {} of {} files; reserved {} of {} open bytes, {} of {} uploads",
                drift.used_bytes,
                drift.charged_bytes,
                drift.file_count,
                drift.charged_files,
                drift.reserved_bytes,
                drift.open_bytes,
                drift.reserved_file_count,
                drift.open_uploads,
            );
            report.violate(5, drift.tenant, "quotas", what);
        }
        for drift in fsck::usage_drifts(&mut tx).await? {
            let what = format!("counts {} bytes, {} are stored", drift.counted_bytes, drift.stored_bytes);
            report.violate(
                5,
                drift.tenant,
                format!("usage_counters {}/{}", drift.category, drift.media_kind),
                what,
            );
        }
        for (tenant, file, version) in fsck::unaudited_versions(&mut tx).await? {
            report.violate(
                11,
                tenant,
                format!("file {file} version {version}"),
                "has no audit entry".to_owned(),
            );
        }
        Ok(tx.commit().await?)
    }
}

/// Reads an object and hashes it.
pub(in crate::app) async fn sums(
    store: &dyn ObjectStorage,
    key: &ObjectKey,
    size: u64,
) -> Result<Sums, Error> {
    let (mut sha256, mut crc64nvme) = (Hasher::default(), Crc64Hasher::default());
    let mut bytes = store.get(key, 0..size).await?;
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        sha256.update(&piece);
        crc64nvme.update(&piece);
    }
    Ok(Sums { sha256: sha256.finish(), crc64nvme: crc64nvme.finish() })
}

/// What must be recorded about stored bytes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::app) struct Sums {
    pub(in crate::app) sha256: Digest,
    pub(in crate::app) crc64nvme: Crc64,
}

impl Report {
    fn violate(&mut self, invariant: u8, tenant: TenantId, place: impl Into<String>, what: String) {
        self.violations.push(Violation { invariant, tenant, place: place.into(), what });
    }
}
