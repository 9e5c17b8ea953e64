//! The report of a round.

use super::SweepOptions;

/// A number of objects and their total size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Amount {
    /// The number of objects and unfinished uploads.
    pub count: u64,
    /// The bytes of the objects. The size of unfinished uploads is not known.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn new(count: i64, bytes: i64) -> Self {
        Self { count: u64::try_from(count).unwrap_or(0), bytes: u64::try_from(bytes).unwrap_or(0) }
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// The report of one round over one store. For a dry run, the counts of what a real run would do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SweepReport {
    /// The name of the store's provider.
    pub provider: String,
    /// Whether nothing was changed.
    pub is_dry_run: bool,
    /// Whether all objects were listed, instead of the recent days only.
    pub is_full_walk: bool,
    /// The number of uploads that were abandoned because their lease expired. Failed ones are retried.
    pub expired_uploads: u64,
    /// The number of open uploads after this round: running, or waiting for their lease to expire.
    pub open_uploads: u64,
    /// The number of objects that the store listed.
    pub listed_objects: u64,
    /// The number of unfinished uploads that the store listed.
    pub listed_multiparts: u64,
    /// Candidates that were found for the first time: without a row, and older than the grace period.
    pub found: Amount,
    /// Candidates that were deleted: found in an earlier round, and without a row for a grace period since
    /// then.
    pub deleted: Amount,
    /// The number of candidates from earlier rounds that have a row by now.
    pub cleared: u64,
    /// All candidates that remain at the end of the round.
    pub waiting: Amount,
    /// The number of skipped objects and uploads that are younger than the grace period.
    pub skipped_young: u64,
    /// The objects and unfinished uploads of undecided lost hours.
    /// Includes objects that have a row.
    pub undecided: Amount,
    /// The number of skipped objects and uploads with another prefix or of a tenant that is not in this
    /// database.
    pub skipped_foreign: u64,
    /// The problems of this round.
    pub problems: Vec<String>,
}

/// The maximum number of problems in a report.
const PROBLEMS_MAX: usize = 20;

impl SweepReport {
    pub(super) fn new(provider: &str, options: SweepOptions) -> Self {
        Self {
            provider: provider.to_owned(),
            is_dry_run: options.is_dry_run,
            is_full_walk: options.is_full_walk,
            expired_uploads: 0,
            open_uploads: 0,
            listed_objects: 0,
            listed_multiparts: 0,
            found: Amount::default(),
            deleted: Amount::default(),
            cleared: 0,
            waiting: Amount::default(),
            skipped_young: 0,
            undecided: Amount::default(),
            skipped_foreign: 0,
            problems: Vec::new(),
        }
    }

    pub(super) fn add_problem(&mut self, problem: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem.into());
        }
    }

    /// Logs the problems, and the result if objects were found or deleted.
    pub(super) fn log(&self) {
        for problem in &self.problems {
            tracing::warn!(provider = self.provider, problem, "failed to complete sweep");
        }
        if self.found.count + self.deleted.count > 0 {
            tracing::info!(
                provider = self.provider,
                is_full_walk = self.is_full_walk,
                found = self.found.count,
                deleted = self.deleted.count,
                deleted_bytes = self.deleted.bytes,
                waiting = self.waiting.count,
                "swept store"
            );
        }
    }
}
