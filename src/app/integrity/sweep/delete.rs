//! The second pass: deletes objects that were found a grace period ago and still have no row.

use super::{Sweep, SweepReport};
use crate::{
    app::{Error, storage::delete_objects::delete_objects},
    db::sweep_candidates::{self, Ownership, SweepCandidate},
    domain::object_key::ObjectKey,
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
            for deleted in self.delete_page(due, report).await? {
                match deleted {
                    Ok(()) => failures = 0,
                    Err(problem) => {
                        report.add_problem(problem);
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

    /// Deletes a page of candidates: the objects in one batch, then the unfinished uploads one by one. Returns the
    /// problem of each candidate whose deletion failed.
    async fn delete_page(
        &self,
        due: Vec<SweepCandidate>,
        report: &mut SweepReport,
    ) -> Result<Vec<Result<(), String>>, Error> {
        let (objects, uploads): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|candidate| candidate.multipart_id.is_none());
        let mut results = self.delete_object_batch(&objects, report).await?;
        for upload in &uploads {
            let deleted = self.delete_candidate(upload, report).await?;
            results.push(deleted.map_err(|error| format!("{}: {error}", upload.key)));
        }
        Ok(results)
    }

    /// Deletes the objects that still have no row, in one batch. Rows are looked up right before it.
    async fn delete_object_batch(
        &self,
        candidates: &[SweepCandidate],
        report: &mut SweepReport,
    ) -> Result<Vec<Result<(), String>>, Error> {
        let mut tx = self.tx().await?;
        let ownerships = sweep_candidates::check_ownership(&mut tx, self.provider(), candidates).await?;
        tx.commit().await?;
        let mut unowned = Vec::new();
        for (candidate, ownership) in candidates.iter().zip(ownerships) {
            match ownership {
                Ownership::StillUnowned => unowned.push(candidate),
                Ownership::Owned => {
                    report.cleared += 1;
                    self.drop_candidate(candidate).await?;
                }
                // The tenant was deleted, or another sweeper processed the candidate.
                _ => {}
            }
        }
        if self.options.is_dry_run {
            unowned.iter().for_each(|candidate| report.deleted.add(candidate.size_bytes));
            return Ok(Vec::new());
        }
        let keys: Vec<ObjectKey> = unowned.iter().map(|candidate| candidate.key.clone()).collect();
        let mut results = Vec::with_capacity(keys.len());
        for (candidate, deleted) in unowned.iter().zip(delete_objects(self.store.as_ref(), &keys).await) {
            if deleted.is_ok() {
                self.drop_candidate(candidate).await?;
                report.deleted.add(candidate.size_bytes);
            }
            results.push(deleted.map_err(|error| format!("{}: {error}", candidate.key)));
        }
        Ok(results)
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

    /// Deletes the bytes of an unfinished upload. The caller deletes its row afterwards, so that the row still
    /// identifies the object if the server crashes in between.
    ///
    /// Also deletes the object with the same key unless a row owns it. A store that
    /// was killed while it started the upload may list the upload forever, although aborting it reports that
    /// it does not exist (Garage 2.5 writes the two in two steps). Deleting the key removes it from the
    /// listing.
    async fn delete_bytes(&self, candidate: &SweepCandidate) -> Result<Result<(), StorageError>, Error> {
        let Some(id) = &candidate.multipart_id else {
            return Ok(self.store.delete(&candidate.key).await);
        };
        if let Err(error) = self.store.abort_multipart(&candidate.key, &MultipartId::new(id.as_str())).await {
            return Ok(Err(error));
        }
        let object = SweepCandidate { multipart_id: None, ..candidate.clone() };
        let mut tx = self.tx().await?;
        let ownerships =
            sweep_candidates::check_ownership(&mut tx, self.provider(), std::slice::from_ref(&object))
                .await?;
        tx.commit().await?;
        match ownerships.first() {
            Some(Ownership::Unowned | Ownership::StillUnowned) => Ok(self.store.delete(&object.key).await),
            _ => Ok(Ok(())),
        }
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
