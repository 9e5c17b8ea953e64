//! Compares the database with the stores and reports every violated invariant. [`Invariant`] lists them;
//! `docs/architecture.md` explains how they are enforced.
//!
//! Only reads, unless it is asked to repair the states of versions: versions with missing or damaged objects
//! are then moved to ERROR, and versions with intact objects are moved out of it. It then also records missing block
//! checksums, and replaces wrong ones.
//!
//! Does not use [`App`](crate::app::App), so that it also works if the service cannot start.

mod records;

use std::{sync::Arc, time::Duration};

use super::{
    block_record::correct_block_checksums,
    damage::{self, DamageRecorder, RecordedSuspicion, Suspicion},
    read_object::read_object,
    sample::{Sample, SampleSize},
};
use crate::{
    app::Error,
    db::{
        Database, Viewer, blob_checksums, content_states,
        fsck::{self, CheckedBlob},
        sweep_candidates::{self, Ownership, SweepCandidate},
    },
    domain::{
        block_checksums::BlockChecksums,
        clock::{Clock, IdSource, Timestamp},
        digest::ObjectHashes,
        ids::TenantId,
        object_hasher::HashedObject,
        object_key::ObjectKey,
    },
    storage::{MultipartInfo, ObjectStorage, ObjectStorageExt, StorageErrorKind, Stores},
    telemetry::Metrics,
};

/// The number of rows or objects in one batch.
const BATCH: usize = 500;

/// The dependencies and options of a check.
pub struct Fsck {
    pub db: Database,
    pub stores: Stores,
    /// Counts the damage that is marked.
    pub metrics: Metrics,
    /// Used to compute the age of objects.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness for the sample of blobs.
    pub ids: Arc<dyn IdSource>,
    /// The maximum age of an object or unfinished upload without a row.
    pub grace: Duration,
    /// The prefix of our object keys. Objects with another prefix are foreign.
    pub key_prefix: String,
    /// The number of blobs to read and hash. The existence and size of every blob are checked in any case.
    pub depth: SampleSize,
    /// Whether to update the states of versions.
    pub is_repairing: bool,
    /// The retention of audit entries, in days. Older versions may have none.
    pub audit_days: u32,
}

/// An invariant that is checked on live data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// The object of an available version exists, with the recorded size, SHA-256, CRC-64 and block checksums.
    StoredBytes,
    /// An object in the store belongs to a blob, an open upload, a stray object or a quarantine, or is younger
    /// than the grace period.
    OwnedObjects,
    /// Quotas and usage counters match the stored files.
    Quotas,
    /// The balance of each user is the sum of its credit entries.
    Credits,
    /// The readers of a file match the policy of its category and its grants.
    Readers,
    /// Every version has an audit entry, unless its retention has ended.
    Audit,
}

impl Invariant {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StoredBytes => "stored_bytes",
            Self::OwnedObjects => "owned_objects",
            Self::Quotas => "quotas",
            Self::Credits => "credits",
            Self::Readers => "readers",
            Self::Audit => "audit",
        }
    }
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct InvariantViolation {
    pub invariant: Invariant,
    pub tenant: TenantId,
    /// The affected key, file or row.
    pub subject: String,
    pub problem: String,
}

/// The result of a check.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct FsckReport {
    pub violations: Vec<InvariantViolation>,
    /// The number of blobs whose existence and size were checked.
    pub blobs: u64,
    /// The number of blobs that were read and hashed.
    pub hashed_blobs: u64,
    /// The bytes of these blobs.
    pub hashed_bytes: u64,
    /// The number of versions that were moved to ERROR.
    pub marked_versions: u64,
    /// The number of versions that were moved out of ERROR.
    pub repaired_versions: u64,
    /// The number of objects that the stores listed.
    pub objects: u64,
    /// The number of objects without a row that are younger than the grace period: left by a crash, or being
    /// uploaded.
    pub young_objects: u64,
    /// The number of objects and unfinished uploads with another prefix or of a tenant that is not in this
    /// database.
    pub foreign: u64,
}

/// Receives progress reports.
pub trait FsckProgress: Send {
    /// Called after each blob, with the counts so far.
    fn report_progress(&mut self, report: &FsckReport);
}

impl Fsck {
    /// Runs all checks.
    ///
    /// # Errors
    /// Returns an error if the database or a store cannot be read. No report is returned then.
    pub async fn check_all(&self, progress: &mut dyn FsckProgress) -> Result<FsckReport, Error> {
        let mut report = FsckReport::default();
        self.check_blobs(&mut report, progress).await?;
        for store in self.stores.iter() {
            self.check_objects(store.as_ref(), &mut report).await?;
            self.check_multiparts(store.as_ref(), &mut report).await?;
        }
        records::check_records(&self.db, self.audit_days, &mut report).await?;
        Ok(report)
    }

    /// Checks that the object of an available version exists, with the recorded size, SHA-256,
    /// CRC-64 and block checksums.
    async fn check_blobs(
        &self,
        report: &mut FsckReport,
        progress: &mut dyn FsckProgress,
    ) -> Result<(), Error> {
        let mut tx = self.db.system_tx().await?;
        let total = fsck::count_needed_blobs(&mut tx).await?;
        tx.commit().await?;
        let mut sample = Sample::new(self.depth, total, Arc::clone(&self.ids));
        let mut after = None;
        loop {
            let mut tx = self.db.system_tx().await?;
            let batch = fsck::list_blobs(&mut tx, after, i64::try_from(BATCH).unwrap_or(i64::MAX)).await?;
            tx.commit().await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = Some(last.cursor());
            for checked in batch.iter().filter(|checked| self.is_repairing && checked.is_lost) {
                self.repair_if_intact(checked, report).await?;
            }
            for checked in batch.iter().filter(|checked| checked.is_needed) {
                // Blobs that were stored after the count are not in the sample, but a full check reads them
                // too.
                let is_read = sample.choose_next() || self.depth == SampleSize::Everything;
                if let Some(problem) = self.check_blob(checked, is_read, report).await? {
                    report.add_violation(
                        Invariant::StoredBytes,
                        checked.tenant,
                        checked.blob.key.as_str(),
                        problem,
                    );
                    if self.is_repairing {
                        self.mark_if_damaged(checked, report).await?;
                    }
                }
                progress.report_progress(report);
            }
        }
    }

    fn recorder(&self) -> DamageRecorder<'_> {
        DamageRecorder { db: &self.db, metrics: &self.metrics }
    }

    /// Confirms the problem with a second check and marks the versions. Replaces wrong block checksums of an intact
    /// object.
    async fn mark_if_damaged(&self, checked: &CheckedBlob, report: &mut FsckReport) -> Result<(), Error> {
        let Ok(store) = self.stores.get(&checked.blob.provider) else { return Ok(()) };
        let CheckedBlob { tenant, blob, .. } = checked;
        let (store, suspicion, recorder) = (store.as_ref(), Suspicion::Checksum, self.recorder());
        match recorder.check_and_mark(store, *tenant, blob, suspicion, None).await? {
            RecordedSuspicion::Damaged { version_count } => report.marked_versions += version_count as u64,
            RecordedSuspicion::Intact(found) => {
                correct_block_checksums(recorder, *tenant, blob, found.as_ref()).await?;
            }
            RecordedSuspicion::Unproven => {}
        }
        Ok(())
    }

    /// Reads the whole object of a missing or damaged blob again and repairs its versions if it is intact.
    async fn repair_if_intact(&self, checked: &CheckedBlob, report: &mut FsckReport) -> Result<(), Error> {
        let Ok(store) = self.stores.get(&checked.blob.provider) else { return Ok(()) };
        let is_intact = match damage::is_intact(store.as_ref(), &checked.blob).await {
            Ok(is_intact) => is_intact == Some(true),
            Err(error)
                if matches!(error.kind, StorageErrorKind::NotFound | StorageErrorKind::InvalidInput) =>
            {
                false
            }
            Err(error) => return Err(error.into()),
        };
        if is_intact {
            let mut tx = self.db.system_tx().await?;
            let repaired = content_states::mark_repaired(&mut tx, checked.tenant, checked.blob.id).await?;
            tx.commit().await?;
            report.repaired_versions += repaired as u64;
        }
        Ok(())
    }

    async fn check_blob(
        &self,
        checked: &CheckedBlob,
        is_read: bool,
        report: &mut FsckReport,
    ) -> Result<Option<String>, Error> {
        let blob = &checked.blob;
        report.blobs += 1;
        let store = match self.stores.get(&blob.provider) {
            Ok(store) => store.as_ref(),
            Err(unknown) => return Ok(Some(unknown.to_string())),
        };
        let size = match store.find_object(&blob.key).await? {
            Some(info) => info.size_bytes,
            None => return Ok(Some("is missing".to_owned())),
        };
        if size != blob.size_bytes {
            return Ok(Some(format!("has {size} bytes; its record has {}", blob.size_bytes)));
        }
        if !is_read {
            return Ok(None);
        }
        report.hashed_blobs += 1;
        report.hashed_bytes += size;
        let HashedObject { hashes, block_checksums, size_bytes: read_bytes } =
            read_object(store, &blob.key, size).await?.checksums;
        if read_bytes != size {
            return Ok(Some(format!("was read in part: the store returned {read_bytes} of {size} bytes")));
        }
        let ObjectHashes { sha256, crc64nvme } = hashes;
        let Some(recorded) = blob.hashes else {
            return Ok(Some(format!("has the SHA-256 {sha256}; its record has none")));
        };
        if sha256 != recorded.sha256 {
            return Ok(Some(format!("has the SHA-256 {sha256}; its record has {}", recorded.sha256)));
        }
        if crc64nvme != recorded.crc64nvme {
            return Ok(Some(format!("has the CRC-64 {crc64nvme}; its record has {}", recorded.crc64nvme)));
        }
        match self.has_recorded_blocks(checked, block_checksums.as_ref()).await? {
            true => Ok(None),
            false => Ok(Some("has other block checksums than its record".to_owned())),
        }
    }

    /// Compares the block checksums of an intact object with the recorded ones. Records those of a blob without any, if
    /// it is repairing.
    async fn has_recorded_blocks(
        &self,
        checked: &CheckedBlob,
        found: Option<&BlockChecksums>,
    ) -> Result<bool, Error> {
        let CheckedBlob { tenant, blob, .. } = checked;
        let mut tx = self.db.tenant_tx(*tenant, &Viewer::system()).await?;
        let recorded = blob_checksums::get_all(&mut tx, blob.id).await;
        let recorded = tx.finish(recorded).await?;
        if let (None, Some(found), true) = (&recorded, found, self.is_repairing) {
            correct_block_checksums(self.recorder(), *tenant, blob, Some(found)).await?;
        }
        Ok(recorded.is_none() || recorded.as_ref() == found)
    }

    /// Checks that an object in the store belongs to a blob or an open upload, or is younger than the
    /// grace period.
    async fn check_objects(&self, store: &dyn ObjectStorage, report: &mut FsckReport) -> Result<(), Error> {
        let mut after: Option<ObjectKey> = None;
        loop {
            let page = store.list("", after.as_ref(), BATCH).await?;
            let keys: Vec<&ObjectKey> = page.objects.iter().map(|object| &object.key).collect();
            let mut tx = self.db.system_tx().await?;
            let ownerships = fsck::check_ownership(&mut tx, &keys).await?;
            tx.commit().await?;
            for (object, ownership) in page.objects.iter().zip(ownerships) {
                report.objects += 1;
                if self.is_foreign(&object.key, ownership) {
                    report.foreign += 1;
                    continue;
                }
                if ownership == Ownership::Owned {
                    continue;
                }
                let age = self.age(object.modify_time);
                if age < self.grace {
                    report.young_objects += 1;
                } else {
                    let problem = format!("belongs to no row and is {} seconds old", age.as_secs());
                    report.add_violation(
                        Invariant::OwnedObjects,
                        object.key.tenant(),
                        object.key.as_str(),
                        problem,
                    );
                }
            }
            after = page.objects.last().map(|object| object.key.clone());
            if page.is_last || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Checks the same for multipart uploads: each belongs to an upload, or is younger than the grace
    /// period.
    async fn check_multiparts(
        &self,
        store: &dyn ObjectStorage,
        report: &mut FsckReport,
    ) -> Result<(), Error> {
        let mut after: Option<MultipartInfo> = None;
        loop {
            let page = store.list_multiparts("", after.as_ref(), BATCH).await?;
            let to_candidate = |multipart: &MultipartInfo| SweepCandidate {
                key: multipart.key.clone(),
                multipart_id: Some(multipart.id.as_str().to_owned()),
                size_bytes: 0,
            };
            let candidates: Vec<SweepCandidate> = page.multiparts.iter().map(to_candidate).collect();
            let mut tx = self.db.system_tx().await?;
            let ownerships =
                sweep_candidates::check_ownership(&mut tx, store.provider(), &candidates).await?;
            tx.commit().await?;
            for (multipart, ownership) in page.multiparts.iter().zip(ownerships) {
                if self.is_foreign(&multipart.key, ownership) {
                    report.foreign += 1;
                    continue;
                }
                let age = self.age(multipart.start_time);
                if ownership != Ownership::Owned && age >= self.grace {
                    let problem = format!(
                        "the unfinished upload {} belongs to no row and is {} seconds old",
                        multipart.id,
                        age.as_secs()
                    );
                    report.add_violation(
                        Invariant::OwnedObjects,
                        multipart.key.tenant(),
                        multipart.key.as_str(),
                        problem,
                    );
                }
            }
            after = page.multiparts.into_iter().next_back();
            if page.is_last || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Returns whether an object belongs to another user of a shared store.
    fn is_foreign(&self, key: &ObjectKey, ownership: Ownership) -> bool {
        ownership == Ownership::Foreign || (ownership != Ownership::Owned && key.prefix() != self.key_prefix)
    }

    fn age(&self, since: Timestamp) -> Duration {
        (self.clock.now() - since).to_std().unwrap_or_default()
    }
}

impl FsckReport {
    fn add_violation(
        &mut self,
        invariant: Invariant,
        tenant: TenantId,
        subject: impl Into<String>,
        problem: String,
    ) {
        self.violations.push(InvariantViolation { invariant, tenant, subject: subject.into(), problem });
    }
}
