//! Counts downloads, and notes when a file was last accessed, without a download ever waiting for it.
//!
//! A download adds to a sum in memory. Every few seconds the sums are written, many files in one statement and in the
//! order of their ids, and once more when the process drains. A crash loses what was not written yet: at most the last few
//! seconds. Nothing is counted twice: when nobody can say whether a commit counts, it is left at that.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    app::{App, Error},
    db::download_counts::{self, AccessGain},
    domain::{
        clock::Timestamp,
        ids::{FileId, TenantId},
    },
};

/// Files whose sums are kept between two writes, about 100 bytes each. With more than half of it the next write comes
/// early; what comes when all is full is not counted, and the log says so.
const FILES_MAX: usize = 65_536;
/// Files written in one statement.
const BATCH_FILES: usize = 1_000;

type Key = (TenantId, FileId);
type Sum = (u64, Timestamp);

/// What was not written yet.
#[derive(Debug, Default)]
pub(in crate::app) struct DownloadCounts {
    sums: Mutex<Sums>,
    many: Notify,
}

#[derive(Debug, Default)]
struct Sums {
    by_file: HashMap<Key, Sum>,
    uncounted: u64,
}

impl DownloadCounts {
    /// Notes an access to a file. Bytes that go on where an earlier download broke off are an access, not a download.
    pub(in crate::app) fn note(&self, file: Key, at: Timestamp, is_download: bool) {
        let mut sums = self.sums();
        sums.add(file, (u64::from(is_download), at));
        if sums.by_file.len() > FILES_MAX / 2 {
            self.many.notify_one();
        }
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        // The map is consistent after every statement.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all sums out, in the order of tenant and file.
    fn take(&self) -> Vec<AccessGain> {
        let Sums { by_file, uncounted } = mem::take(&mut *self.sums());
        if uncounted > 0 {
            tracing::warn!(uncounted, "downloads of too many files at once; these were not counted");
        }
        let gain = |((tenant, file), (downloads, last_access_time))| AccessGain {
            tenant,
            file,
            downloads,
            last_access_time,
        };
        let mut gains: Vec<AccessGain> = by_file.into_iter().map(gain).collect();
        gains.sort_unstable_by_key(|gain| (gain.tenant, gain.file));
        gains
    }

    fn put_back(&self, gains: &[AccessGain]) {
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

/// Comes back when so many files were accessed that their counts should be written early.
pub async fn many_are_waiting(app: &App) {
    app.download_counts.many.notified().await;
}

/// Writes what was counted since the last time; answers for how many files. What could not be written waits for the next
/// time.
///
/// # Errors
/// When the database does not answer.
pub async fn flush(app: &App) -> Result<usize, Error> {
    let gains = app.download_counts.take();
    for (nth, batch) in gains.chunks(BATCH_FILES).enumerate() {
        if let Err(error) = write(app, batch).await {
            app.download_counts.put_back(&gains[nth * BATCH_FILES..]);
            return Err(error);
        }
    }
    Ok(gains.len())
}

async fn write(app: &App, batch: &[AccessGain]) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    download_counts::add(&mut tx, batch).await?;
    if let Err(error) = tx.commit().await {
        // It may count. Twice would be worse than not at all.
        tracing::warn!(%error, files = batch.len(), "the outcome of writing download counts is not known");
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
    fn sums_come_out_once_in_the_order_of_ids_and_go_back_in() {
        let counts = DownloadCounts::default();
        for (file, second, is_download) in [(2, 5, true), (1, 7, true), (2, 3, true), (2, 4, false)] {
            counts.note(key(file), at(second), is_download);
        }
        let gains = counts.take();
        let seen: Vec<_> = gains.iter().map(|gain| (gain.downloads, gain.last_access_time)).collect();
        assert_eq!(seen, [(1, at(7)), (2, at(5))]);
        assert!(gains.is_sorted_by_key(|gain| gain.file) && counts.take().is_empty());
        counts.note(key(1), at(1), true);
        counts.put_back(&gains);
        assert_eq!(counts.take()[0].downloads, 2);
    }

    #[test]
    fn memory_is_bounded_however_many_files_are_read() {
        let counts = DownloadCounts::default();
        for n in 0..FILES_MAX + 10 {
            counts.note(key(n), at(1), true);
        }
        counts.note(key(0), at(2), true);
        assert_eq!(counts.sums().uncounted, 10);
        let gains = counts.take();
        assert_eq!((gains.len(), gains[0].downloads), (FILES_MAX, 2), "what is known goes on counting");
    }
}
