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

/// A file of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::app) struct CountedFile {
    pub(in crate::app) tenant: TenantId,
    pub(in crate::app) file: FileId,
}

/// The accesses to a file.
#[derive(Debug, Clone, Copy)]
struct Sum {
    downloads: u64,
    last_access_time: Timestamp,
}

/// The sums that are not written yet.
#[derive(Debug, Default)]
pub(in crate::app) struct DownloadCounts {
    sums: Mutex<Sums>,
    half_full: Notify,
}

#[derive(Debug, Default)]
struct Sums {
    by_file: HashMap<CountedFile, Sum>,
    uncounted: u64,
}

impl DownloadCounts {
    /// Records an access to a file. Resuming an interrupted download counts as an access, not as a download.
    pub(in crate::app) fn record_access(&self, file: CountedFile, at: Timestamp, is_download: bool) {
        let mut sums = self.sums();
        sums.add(file, Sum { downloads: u64::from(is_download), last_access_time: at });
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
        let mut gains: Vec<DownloadDelta> = by_file
            .into_iter()
            .map(|(CountedFile { tenant, file }, Sum { downloads, last_access_time })| DownloadDelta {
                tenant,
                file,
                downloads,
                last_access_time,
            })
            .collect();
        gains.sort_unstable_by_key(|gain| (gain.tenant, gain.file));
        gains
    }

    fn restore(&self, gains: &[DownloadDelta]) {
        let mut sums = self.sums();
        for gain in gains {
            let DownloadDelta { tenant, file, downloads, last_access_time } = *gain;
            sums.add(CountedFile { tenant, file }, Sum { downloads, last_access_time });
        }
    }
}

impl Sums {
    fn add(&mut self, file: CountedFile, added: Sum) {
        if self.by_file.len() >= FILES_MAX && !self.by_file.contains_key(&file) {
            self.uncounted += added.downloads;
            return;
        }
        let sum = self.by_file.entry(file).or_insert(Sum { downloads: 0, ..added });
        sum.downloads += added.downloads;
        sum.last_access_time = sum.last_access_time.max(added.last_access_time);
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

    fn counted_file(n: usize) -> CountedFile {
        CountedFile {
            tenant: TenantId::from_uuid(Uuid::nil()),
            file: FileId::from_uuid(Uuid::from_u128(n as u128)),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn takes_sums_once_in_id_order_and_restores_them() {
        let counts = DownloadCounts::default();
        for (file, second, is_download) in [(2, 5, true), (1, 7, true), (2, 3, true), (2, 4, false)] {
            counts.record_access(counted_file(file), at(second), is_download);
        }
        let gains = counts.take_all();
        let seen: Vec<_> = gains.iter().map(|gain| (gain.downloads, gain.last_access_time)).collect();
        assert_eq!(seen, [(1, at(7)), (2, at(5))]);
        assert!(gains.is_sorted_by_key(|gain| gain.file) && counts.take_all().is_empty());
        counts.record_access(counted_file(1), at(1), true);
        counts.restore(&gains);
        assert_eq!(counts.take_all()[0].downloads, 2);
    }

    #[test]
    fn bounds_memory_when_many_files_are_read() {
        let counts = DownloadCounts::default();
        for n in 0..FILES_MAX + 10 {
            counts.record_access(counted_file(n), at(1), true);
        }
        counts.record_access(counted_file(0), at(2), true);
        assert_eq!(counts.sums().uncounted, 10);
        let gains = counts.take_all();
        assert_eq!((gains.len(), gains[0].downloads), (FILES_MAX, 2), "known files are still counted");
    }
}
