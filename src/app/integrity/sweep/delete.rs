//! The second pass: deletes objects that were found a grace period ago and still have no row.

use super::{Sweep, SweepReport};
use crate::{
    app::{
        Error,
        owner::delete::{Deletion, delete_from_store},
    },
    db::sweep_candidates::{self, Ownership, SweepCandidate},
    storage::{MultipartId, StorageError},
};

/// The number of consecutive failed deletions after which the sweep stops; the next sweep retries the remaining candidates.
const CONSECUTIVE_FAILURES_MAX: u32 = 10;

impl Sweep<'_> {
    /// Deletes due candidates. A candidate whose deletion fails does not block the others; the next round
    /// retries it.
    pub(super) async fn delete_due(&mut self, report: &mut SweepReport) -> Result<(), Error> {
        self.drop_owned(report).await?;
        let limit = i64::try_from(self.batch_size()).unwrap_or(i64::MAX);
        let grace_seconds = self.options.grace.as_secs();
        let (mut after, mut failures) = (None, 0);
        while self.has_lock(report).await {
            let mut tx = self.tx().await?;
            let provider = self.provider();
            let due =
                sweep_candidates::list_due(&mut tx, provider, grace_seconds, after.as_ref(), limit).await?;
            tx.commit().await?;
            let Some(last) = due.last() else { return Ok(()) };
            after = Some(last.clone());
            for candidate in &due {
                match self.delete_candidate(candidate, report).await? {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        report.add_problem(format!("{}: {error}", candidate.key));
                        failures += 1;
                    }
                }
                if failures >= CONSECUTIVE_FAILURES_MAX {
                    report.add_problem(format!(
                        "{failures} consecutive deletions failed; the next sweep retries the remaining candidates"
                    ));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn drop_owned(&self, report: &mut SweepReport) -> Result<(), Error> {
        if self.options.is_dry_run {
            return Ok(());
        }
        let mut tx = self.tx().await?;
        report.cleared += sweep_candidates::delete_owned(&mut tx, self.provider()).await? as u64;
        Ok(tx.commit().await?)
    }

    async fn delete_candidate(
        &self,
        candidate: &SweepCandidate,
        report: &mut SweepReport,
    ) -> Result<Result<(), StorageError>, Error> {
        let mut tx = self.tx().await?;
        let ownerships =
            sweep_candidates::check_ownership(&mut tx, self.provider(), std::slice::from_ref(candidate))
                .await?;
        tx.commit().await?;
        match ownerships.first() {
            Some(Ownership::StillUnowned) => {}
            Some(Ownership::Owned) => {
                report.cleared += 1;
                return self.drop_candidate(candidate).await.map(Ok);
            }
            // The tenant was deleted, or another sweeper processed the candidate.
            _ => return Ok(Ok(())),
        }
        if !self.options.is_dry_run {
            if let Err(error) = self.delete_bytes(candidate).await? {
                return Ok(Err(error));
            }
            self.drop_candidate(candidate).await?;
        }
        report.deleted.add(candidate.size_bytes);
        Ok(Ok(()))
    }

    /// Deletes the bytes of a candidate. The caller deletes its row afterwards, so that the row still
    /// identifies the object if the server crashes in between.
    ///
    /// For an unfinished upload, also deletes the object with the same key unless a row owns it. A store that
    /// was killed while it started the upload may list the upload forever, although aborting it reports that
    /// it does not exist (Garage 2.5 writes the two in two steps). Deleting the key removes it from the
    /// listing.
    async fn delete_bytes(&self, candidate: &SweepCandidate) -> Result<Result<(), StorageError>, Error> {
        let Some(id) = &candidate.multipart_id else {
            return Ok(self.delete_from_store(Deletion::Object(&candidate.key)).await);
        };
        let id = MultipartId::new(id.as_str());
        if let Err(error) = self.delete_from_store(Deletion::Multipart(&candidate.key, &id)).await {
            return Ok(Err(error));
        }
        let object = SweepCandidate { multipart_id: None, ..candidate.clone() };
        let mut tx = self.tx().await?;
        let ownerships =
            sweep_candidates::check_ownership(&mut tx, self.provider(), std::slice::from_ref(&object))
                .await?;
        tx.commit().await?;
        match ownerships.first() {
            Some(Ownership::Unowned | Ownership::StillUnowned) => {
                Ok(self.delete_from_store(Deletion::Object(&object.key)).await)
            }
            _ => Ok(Ok(())),
        }
    }

    async fn delete_from_store(&self, deletion: Deletion<'_>) -> Result<(), StorageError> {
        delete_from_store(self.store.as_ref(), deletion).await
    }

    async fn drop_candidate(&self, candidate: &SweepCandidate) -> Result<(), Error> {
        if self.options.is_dry_run {
            return Ok(());
        }
        let mut tx = self.tx().await?;
        sweep_candidates::delete(&mut tx, self.provider(), candidate).await?;
        Ok(tx.commit().await?)
    }
}
