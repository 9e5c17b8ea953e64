//! Counts downloads and records the last access to a file, without delaying the download.
//!
//! A download adds to a sum in memory. The sums are written every few seconds, many files in one statement
//! and in the order of their ids, and a last time when the process drains. A crash loses the unwritten sums,
//! at most the last few seconds. Nothing is counted twice: if the outcome of a commit is not known, the sums
//! are not written again.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    app::{App, Error, RoundReport},
    db::download_counts::{self, DownloadDelta},
    domain::{
        clock::Timestamp,
        ids::{FileId, TenantId},
    },
};

/// The maximum number of files with unwritten counts, about 100 bytes each. Above half of this number, the
/// counts are written early.
/// When the limit is reached, downloads of other files are not counted, and a warning is logged.
const FILES_MAX: usize = 65_536;
/// The number of files written in one statement.
const BATCH_FILES: usize = 1_000;

type Key = (TenantId, FileId);
type Sum = (u64, Timestamp);

/// The sums that are not written yet.
#[derive(Debug, Default)]
pub(in crate::app) struct DownloadCounts {
    sums: Mutex<Sums>,
    half_full: Notify,
}

#[derive(Debug, Default)]
struct Sums {
    by_file: HashMap<Key, Sum>,
    uncounted: u64,
}

impl DownloadCounts {
    /// Records an access to a file. Resuming an interrupted download counts as an access, not as a download.
    pub(in crate::app) fn record_access(&self, file: Key, at: Timestamp, is_download: bool) {
        let mut sums = self.sums();
        sums.add(file, (u64::from(is_download), at));
        if sums.by_file.len() > FILES_MAX / 2 {
            self.half_full.notify_one();
        }
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        // The map is consistent after every statement, so a poisoned lock is safe to use.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes and returns all sums, in the order of tenant and file.
    fn take_all(&self) -> Vec<DownloadDelta> {
        let Sums { by_file, uncounted } = mem::take(&mut *self.sums());
        if uncounted > 0 {
            tracing::warn!(uncounted, "dropped download counts: too many files were downloaded at once");
        }
        let gain = |((tenant, file), (downloads, last_access_time))| DownloadDelta {
            tenant,
            file,
            downloads,
            last_access_time,
        };
        let mut gains: Vec<DownloadDelta> = by_file.into_iter().map(gain).collect();
        gains.sort_unstable_by_key(|gain| (gain.tenant, gain.file));
        gains
    }

    fn restore(&self, gains: &[DownloadDelta]) {
        let mut sums = self.sums();
        for gain in gains {
            sums.add((gain.tenant, gain.file), (gain.downloads, gain.last_access_time));
        }
    }
}

impl Sums {
    fn add(&mut self, key: Key, (downloads, at): Sum) {
        if self.by_file.len() >= FILES_MAX && !self.by_file.contains_key(&key) {
            self.uncounted += downloads;
            return;
        }
        let sum = self.by_file.entry(key).or_insert((0, at));
        *sum = (sum.0 + downloads, sum.1.max(at));
    }
}

/// Waits until enough files were accessed that their counts should be written early.
pub async fn wait_for_many_counts(app: &App) {
    app.download_counts.half_full.notified().await;
}

/// Writes all sums. Counts the files as done. Sums that could not be written stay in memory until the next
/// call.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn flush_download_counts(app: &App) -> Result<RoundReport, Error> {
    let gains = app.download_counts.take_all();
    for (nth, batch) in gains.chunks(BATCH_FILES).enumerate() {
        if let Err(error) = write_batch(app, batch).await {
            app.download_counts.restore(&gains[nth * BATCH_FILES..]);
            return Err(error);
        }
    }
    Ok(RoundReport { done: gains.len(), ..RoundReport::default() })
}

async fn write_batch(app: &App, batch: &[DownloadDelta]) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    download_counts::add(&mut tx, batch).await?;
    if let Err(error) = tx.commit().await {
        // The commit may have succeeded. Losing the counts is better than counting twice.
        tracing::warn!(%error, files = batch.len(), "failed to confirm the write of download counts");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn key(n: usize) -> Key {
        (TenantId::from_uuid(Uuid::nil()), FileId::from_uuid(Uuid::from_u128(n as u128)))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn takes_sums_once_in_id_order_and_restores_them() {
        let counts = DownloadCounts::default();
        for (file, second, is_download) in [(2, 5, true), (1, 7, true), (2, 3, true), (2, 4, false)] {
            counts.record_access(key(file), at(second), is_download);
        }
        let gains = counts.take_all();
        let seen: Vec<_> = gains.iter().map(|gain| (gain.downloads, gain.last_access_time)).collect();
        assert_eq!(seen, [(1, at(7)), (2, at(5))]);
        assert!(gains.is_sorted_by_key(|gain| gain.file) && counts.take_all().is_empty());
        counts.record_access(key(1), at(1), true);
        counts.restore(&gains);
        assert_eq!(counts.take_all()[0].downloads, 2);
    }

    #[test]
    fn bounds_memory_when_many_files_are_read() {
        let counts = DownloadCounts::default();
        for n in 0..FILES_MAX + 10 {
            counts.record_access(key(n), at(1), true);
        }
        counts.record_access(key(0), at(2), true);
        assert_eq!(counts.sums().uncounted, 10);
        let gains = counts.take_all();
        assert_eq!((gains.len(), gains[0].downloads), (FILES_MAX, 2), "known files are still counted");
    }
}
