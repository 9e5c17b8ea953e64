//! What a round found, and what it did.

use super::SweepOptions;

/// How many, and how many bytes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Amount {
    /// Objects and unfinished uploads.
    pub count: u64,
    /// The bytes of the objects; what an unfinished upload holds is not known.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn of(count: i64, bytes: i64) -> Self {
        Self { count: u64::try_from(count).unwrap_or(0), bytes: u64::try_from(bytes).unwrap_or(0) }
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// One store, swept once. Of a dry run, what would have happened.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Which store.
    pub provider: String,
    /// Nothing was changed.
    pub is_dry_run: bool,
    /// Everything was walked through, not the young days only.
    pub is_full_walk: bool,
    /// Uploads that were given up because their lease ran out. Those that hang on a store that refuses are tried again.
    pub expired_uploads: u64,
    /// Uploads that are not at their end, after this round: they run, or wait for their lease to run out.
    pub open_uploads: u64,
    /// Objects that the store listed.
    pub listed_objects: u64,
    /// Unfinished uploads that the store listed.
    pub listed_multiparts: u64,
    /// Found in this round for the first time: without a row, and older than the grace period.
    pub found: Amount,
    /// Removed: found before, and without a row for a grace period since.
    pub removed: Amount,
    /// Found before, and owned by a row after all.
    pub forgotten: u64,
    /// Everything that waits for its grace period at the end of the round, or for the next round.
    pub waiting: Amount,
    /// Left alone because it is younger than the grace period.
    pub skipped_young: u64,
    /// Left alone because its prefix is not ours or this database does not know its tenant.
    pub skipped_foreign: u64,
    /// What could not be done this time, and why.
    pub problems: Vec<String>,
}

/// The most problems that one report names.
const PROBLEMS_MAX: usize = 20;

impl Report {
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
            removed: Amount::default(),
            forgotten: 0,
            waiting: Amount::default(),
            skipped_young: 0,
            skipped_foreign: 0,
            problems: Vec::new(),
        }
    }

    pub(super) fn problem(&mut self, what: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(what.into());
        }
    }

    /// One line for operators, where there is something to say.
    pub(super) fn log(&self) {
        for problem in &self.problems {
            tracing::warn!(provider = self.provider, problem, "sweep");
        }
        if self.found.count + self.removed.count > 0 {
            tracing::info!(
                provider = self.provider,
                is_full_walk = self.is_full_walk,
                found = self.found.count,
                removed = self.removed.count,
                removed_bytes = self.removed.bytes,
                waiting = self.waiting.count,
                "swept"
            );
        }
    }
}
