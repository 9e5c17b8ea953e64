//! Moves blobs from one provider to another, while the service runs.
//!
//! Each blob goes by itself, as `relocation` has it: what is interrupted leaves its row as it was, so a second run goes on where
//! the first one stopped.
//!
//! The walk goes once, in the order of ids, which are as random as they are new: what is committed meanwhile may come to lie
//! behind it. So it counts at the end what is still there, and whoever called calls again until that is nothing.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::{
    copy::Copy,
    explained,
    relocation::{Class, Outcome, Relocation, read_back},
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
        ids::TenantId,
        storage_class::StorageClass,
    },
    storage::{ObjectStorage, PutOptions, Stores},
};

/// How many rows are read in one go.
const BATCH: i64 = 500;

/// So many blobs that could not be moved mean that something else is wrong.
const FAILURES_MAX: usize = 100;

/// What to move with.
pub struct Move {
    /// The database.
    pub db: Database,
    /// The stores of all providers.
    pub stores: Stores,
    /// Tells the day of new keys.
    pub clock: Arc<dyn Clock>,
    /// Makes new keys.
    pub ids: Arc<dyn IdSource>,
    /// Larger blobs go in parts of this size, in bytes.
    pub part_size_bytes: u64,
    /// How long originals stay, in hours.
    pub undelete_window_hours: u32,
}

/// What to move.
#[derive(Debug, Clone)]
pub struct MoveOptions {
    /// The provider to move away from.
    pub from: String,
    /// The provider to move to.
    pub to: String,
    /// How many blobs at a time; each may hold one part in memory.
    pub concurrency: usize,
    /// Whether every copy is read back and compared once more.
    pub reads_back: bool,
    /// Only count.
    pub is_dry_run: bool,
}

/// What was moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Nothing was moved; the counts say what would be.
    pub is_dry_run: bool,
    /// Blobs that were moved.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that changed meanwhile: their files were purged, or another run was faster.
    pub overtaken: u64,
    /// Blobs of purged files, which stay where they are until their time has come.
    pub released: u64,
    /// Blobs that could not be moved and are where they were.
    pub failures: Vec<Failure>,
    /// The run ended early, because too much failed.
    pub is_cut_short: bool,
    /// Blobs that were still there at the end: what failed, and what came meanwhile.
    pub left_blobs: u64,
    /// Blobs whose bytes nobody has verified yet; they can be moved once that is done.
    pub unverified: u64,
    /// Blobs whose bytes were refused when they were verified. They stay where they are until somebody deletes their versions.
    pub refused: u64,
    /// Uploads to there that had not ended; each may become one more blob.
    pub open_uploads: u64,
    /// New bytes go to the provider that is moved away from.
    pub is_written_to: bool,
}

/// A blob that could not be moved.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    /// Whose.
    pub tenant: TenantId,
    /// Where it is.
    pub key: String,
    /// Why, with all causes.
    pub why: String,
}

/// What goes on, for whoever shows progress.
pub trait Progress: Send {
    /// So much was moved so far.
    fn moved(&mut self, report: &Report);
}

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum MoveError {
    #[error(transparent)]
    UnknownProvider(#[from] crate::storage::UnknownProvider),
    #[error("`{0}` is where the blobs are; name another provider to move them to")]
    SameProvider(String),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<crate::db::DbError> for MoveError {
    fn from(error: crate::db::DbError) -> Self {
        Self::Failed(error.into())
    }
}

impl Move {
    /// Moves everything that can be moved. What fails is in the report, and is worth a second run.
    ///
    /// # Errors
    /// When a provider is not configured, or the database does not answer. What was moved until then is moved.
    pub async fn run(&self, options: &MoveOptions, progress: &mut dyn Progress) -> Result<Report, MoveError> {
        let (from, to) = (self.stores.of(&options.from)?, self.stores.of(&options.to)?);
        if options.from == options.to {
            return Err(MoveError::SameProvider(options.from.clone()));
        }
        let is_written_to = self.stores.writing().provider() == options.from;
        let mut report = Report { is_dry_run: options.is_dry_run, is_written_to, ..Report::default() };
        self.move_all(options, from.as_ref(), to.as_ref(), &mut report, progress).await?;
        let mut tx = self.db.system_tx().await?;
        // In the order in which an upload becomes a blob that can be moved: one that does in between is counted twice rather
        // than not at all.
        report.open_uploads = uploads::count_open(&mut tx, &options.from).await?;
        let undigested = blobs::count_undigested(&mut tx, &options.from).await?;
        (report.unverified, report.refused) = (undigested.unverified, undigested.refused);
        report.left_blobs = blobs::count_movable(&mut tx, &options.from).await?;
        report.released = blobs::count_released(&mut tx, &options.from).await?;
        tx.commit().await?;
        Ok(report)
    }

    async fn move_all(
        &self,
        options: &MoveOptions,
        from: &dyn ObjectStorage,
        to: &dyn ObjectStorage,
        report: &mut Report,
        progress: &mut dyn Progress,
    ) -> Result<(), MoveError> {
        let mut after = None;
        loop {
            let mut tx = self.db.system_tx().await?;
            let batch = blobs::list_movable(&mut tx, &options.from, after, BATCH).await?;
            tx.commit().await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = Some((last.owned.tenant, last.owned.blob.id));
            if options.is_dry_run {
                report.blobs += batch.len() as u64;
                report.bytes += batch.iter().map(|movable| movable.owned.blob.size_bytes).sum::<u64>();
                progress.moved(report);
                continue;
            }
            let moves = batch.into_iter().map(|movable| async move {
                let outcome = self.move_blob(&movable, from, to, options.reads_back).await;
                (movable.owned, outcome)
            });
            let mut moves = stream::iter(moves).buffer_unordered(options.concurrency.max(1));
            while let Some((owned, outcome)) = moves.next().await {
                report.count(&owned, outcome);
                progress.moved(report);
                // Dropping the others is no more than a crash would do.
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
    ) -> Result<Outcome, Error> {
        let owned = &movable.owned;
        let blob = &owned.blob;
        let relocation = Relocation {
            db: &self.db,
            clock: self.clock.as_ref(),
            ids: self.ids.as_ref(),
            undelete_window_hours: self.undelete_window_hours,
        };
        let target = relocation.begin(owned, to, blob.size_bytes > self.part_size_bytes).await?;
        // What is archived stays so, where the new provider has a class for it.
        let class = match to.capabilities().storage_classes {
            true => blob.class,
            false => StorageClass::Standard,
        };
        let options = PutOptions::of_blob(owned.tenant, movable.created_by.as_deref()).in_class(class);
        let copy = Copy { blob, from, to, key: &target.key, options: &options };
        let mut made = copy.run(self.part_size_bytes).await;
        if reads_back && made.is_ok() {
            made = read_back(to, &target.key, blob).await;
        }
        relocation.conclude(owned, &target, Class::Kept(class), made).await
    }
}

impl Report {
    /// Whether nothing is left to do: nothing failed, and nothing remains or is about to come. Until new bytes go elsewhere,
    /// that holds for the moment.
    pub fn is_done(&self) -> bool {
        let remaining = self.left_blobs + self.unverified + self.open_uploads;
        self.failures.is_empty() && (self.is_dry_run || remaining == 0)
    }

    fn count(&mut self, owned: &TenantBlob, outcome: Result<Outcome, Error>) {
        match outcome {
            Ok(Outcome::Moved) => {
                self.blobs += 1;
                self.bytes += owned.blob.size_bytes;
            }
            Ok(Outcome::Overtaken) => self.overtaken += 1,
            Err(error) => {
                let (tenant, key) = (owned.tenant, owned.blob.key.to_string());
                self.failures.push(Failure { tenant, key, why: explained(&error) });
            }
        }
    }
}
