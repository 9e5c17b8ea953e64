//! Moves blobs from one provider to another while the service is running.
//!
//! Each blob is moved separately, see `relocation`. An interrupted move leaves its row unchanged, so that a
//! second run continues where the first one stopped.
//!
//! A run processes the blobs once, in the order of their ids. Ids are random, so blobs that are committed
//! during the run may be missed. The report contains the number of remaining blobs; repeat the run until it
//! is zero.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::{
    copy::BlobCopy,
    relocation::{Relocation, RelocationOutcome, TargetClass, hold_reservation},
};
use crate::{
    app::Error,
    db::{
        Database,
        blobs::{self, MovableBlob, TenantBlob},
        uploads,
    },
    domain::{
        clock::{Clock, IdSource},
        error_text::with_causes,
        ids::TenantId,
        storage_class::StorageClass,
    },
    storage::{ObjectStorage, PutOptions, Stores},
};

/// The number of rows in one batch.
const BATCH: i64 = 500;

/// The number of failures after which a run stops, because the cause is probably not in the blobs.
const FAILURES_MAX: usize = 100;

/// Moves blobs between providers.
pub struct BlobMover {
    pub db: Database,
    pub stores: Stores,
    /// Used for the day in new keys.
    pub clock: Arc<dyn Clock>,
    /// Used for the ids in new keys.
    pub ids: Arc<dyn IdSource>,
    /// The part size for larger blobs, in bytes.
    pub part_size_bytes: u64,
    /// The time until the deletion of originals, in hours.
    pub blob_deletion_delay_hours: u32,
}

/// The options of a run.
#[derive(Debug, Clone)]
pub struct MoveOptions {
    /// The source provider.
    pub from: String,
    /// The target provider.
    pub to: String,
    /// The number of concurrent moves. Each may hold one part in memory.
    pub concurrency: usize,
    /// Whether to read back and verify each copy.
    pub reads_back: bool,
    /// Whether to count the blobs without moving them.
    pub is_dry_run: bool,
}

/// The report of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct MoveReport {
    /// Whether nothing was moved. The counts then show what a real run would do.
    pub is_dry_run: bool,
    /// The number of moved blobs.
    pub blobs: u64,
    /// The bytes of the moved blobs.
    pub bytes: u64,
    /// The number of blobs that changed during their move: their files were purged, or another run moved
    /// them.
    pub superseded: u64,
    /// The number of blobs whose deletion is scheduled. They are not moved.
    pub released: u64,
    /// Blobs that could not be moved and are still at the source.
    pub failures: Vec<Failure>,
    /// Whether the run stopped early because of too many failures.
    pub is_cut_short: bool,
    /// The number of blobs still at the source at the end: failed ones, and ones that were stored during the
    /// run.
    pub left_blobs: u64,
    /// The number of blobs whose bytes are not verified yet. They can be moved after that.
    pub unverified: u64,
    /// The number of blobs that failed verification. They stay at the source until their versions are
    /// deleted.
    pub refused: u64,
    /// The number of open uploads to the source. Each may become another blob.
    pub open_uploads: u64,
    /// Whether new bytes are still stored at the source.
    pub is_written_to: bool,
}

/// A blob that could not be moved.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    pub tenant: TenantId,
    pub key: String,
    /// The error, with all causes.
    pub reason: String,
}

/// Receives progress reports.
pub trait MoveProgress: Send {
    /// Called after each blob, with the counts so far.
    fn report_progress(&mut self, report: &MoveReport);
}

/// An error of a run.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error(transparent)]
    UnknownProvider(#[from] crate::storage::UnknownProvider),
    #[error("source and target are the same provider `{0}`; name another target")]
    SameProvider(String),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<crate::db::DbError> for MoveError {
    fn from(error: crate::db::DbError) -> Self {
        Self::Failed(error.into())
    }
}

impl BlobMover {
    /// Moves all blobs that can be moved. The report contains the failures; a second run retries them.
    ///
    /// # Errors
    /// Returns an error if a provider is not configured or the database is unreachable. Earlier moves are not
    /// rolled back.
    pub async fn move_blobs(
        &self,
        options: &MoveOptions,
        progress: &mut dyn MoveProgress,
    ) -> Result<MoveReport, MoveError> {
        let (from, to) = (self.stores.get(&options.from)?, self.stores.get(&options.to)?);
        if options.from == options.to {
            return Err(MoveError::SameProvider(options.from.clone()));
        }
        let is_written_to = self.stores.primary().provider() == options.from;
        let mut report =
            MoveReport { is_dry_run: options.is_dry_run, is_written_to, ..MoveReport::default() };
        self.move_all(options, from.as_ref(), to.as_ref(), &mut report, progress).await?;
        let mut tx = self.db.system_tx().await?;
        // Count in the order in which an upload becomes a movable blob, so that one that changes during the
        // counts is counted twice instead of not at all.
        report.open_uploads = uploads::count_open(&mut tx, &options.from).await?;
        let undigested = blobs::count_undigested(&mut tx, &options.from).await?;
        (report.unverified, report.refused) = (undigested.unverified, undigested.refused);
        report.left_blobs = blobs::count_movable(&mut tx, &options.from).await?;
        report.released = blobs::count_scheduled(&mut tx, &options.from).await?;
        tx.commit().await?;
        Ok(report)
    }

    async fn move_all(
        &self,
        options: &MoveOptions,
        from: &dyn ObjectStorage,
        to: &dyn ObjectStorage,
        report: &mut MoveReport,
        progress: &mut dyn MoveProgress,
    ) -> Result<(), MoveError> {
        let mut after = None;
        loop {
            let mut tx = self.db.system_tx().await?;
            let batch = blobs::list_movable(&mut tx, &options.from, after, BATCH).await?;
            tx.commit().await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = Some(last.tenant_blob.cursor());
            if options.is_dry_run {
                report.blobs += batch.len() as u64;
                report.bytes += batch.iter().map(|movable| movable.tenant_blob.blob.size_bytes).sum::<u64>();
                progress.report_progress(report);
                continue;
            }
            let moves = batch.into_iter().map(|movable| async move {
                let outcome = self.move_blob(&movable, from, to, options.reads_back).await;
                (movable.tenant_blob, outcome)
            });
            let mut moves = stream::iter(moves).buffer_unordered(options.concurrency.max(1));
            while let Some((owned, outcome)) = moves.next().await {
                report.add_outcome(&owned, outcome);
                progress.report_progress(report);
                // Dropping the running moves is safe, like a crash.
                if report.failures.len() >= FAILURES_MAX {
                    report.is_cut_short = true;
                    return Ok(());
                }
            }
        }
    }

    async fn move_blob(
        &self,
        movable: &MovableBlob,
        from: &dyn ObjectStorage,
        to: &dyn ObjectStorage,
        reads_back: bool,
    ) -> Result<RelocationOutcome, Error> {
        let owned = &movable.tenant_blob;
        let blob = &owned.blob;
        let relocation = Relocation {
            db: &self.db,
            clock: self.clock.as_ref(),
            ids: self.ids.as_ref(),
            blob_deletion_delay_hours: self.blob_deletion_delay_hours,
        };
        let target = relocation.reserve_target(owned, to, blob.size_bytes > self.part_size_bytes).await?;
        // Archived blobs stay in the archive class if the target has one.
        let class = match to.capabilities().storage_classes {
            true => blob.class,
            false => StorageClass::Standard,
        };
        let options = PutOptions::for_blob(owned.tenant, movable.created_by.as_deref()).with_class(class);
        let copy = BlobCopy { blob, from, to, key: &target.key, options };
        let copying = async {
            match reads_back {
                true => copy.copy_and_verify(self.part_size_bytes).await,
                false => copy.copy_with_label(self.part_size_bytes).await,
            }
        };
        let copied = Box::pin(hold_reservation(&self.db, &target, copying)).await;
        relocation.finish(owned, &target, TargetClass::Preserved(class), copied).await
    }
}

impl MoveReport {
    /// Returns whether nothing failed and no blobs remain or are expected. While new bytes are stored at the
    /// source, this is true only for the moment.
    pub fn is_done(&self) -> bool {
        let remaining = self.left_blobs + self.unverified + self.open_uploads;
        self.failures.is_empty() && (self.is_dry_run || remaining == 0)
    }

    fn add_outcome(&mut self, owned: &TenantBlob, outcome: Result<RelocationOutcome, Error>) {
        match outcome {
            Ok(RelocationOutcome::Moved) => {
                self.blobs += 1;
                self.bytes += owned.blob.size_bytes;
            }
            Ok(RelocationOutcome::Superseded) => self.superseded += 1,
            Err(error) => {
                let (tenant, key) = (owned.tenant, owned.blob.key.to_string());
                self.failures.push(Failure { tenant, key, reason: with_causes(&error) });
            }
        }
    }
}
