//! The second pass: what was found a grace period ago and still has no row.

use super::{Report, Sweep};
use crate::{
    app::Error,
    db::sweep_candidates::{self, Candidate, Verdict},
    storage::{MultipartId, StorageError},
};

/// How many removals in a row a store may refuse before the rest waits for the next round.
const REFUSALS_MAX: u32 = 10;

impl Sweep<'_> {
    /// Removes what is due. What a store refuses stays remembered, does not hold up the others, and is tried again in the
    /// next round.
    pub(super) async fn remove(&mut self, report: &mut Report) -> Result<(), Error> {
        self.forget_owned(report).await?;
        let limit = i64::try_from(self.batch()).unwrap_or(i64::MAX);
        let grace_seconds = self.options.grace.as_secs();
        let (mut after, mut refusals) = (None, 0);
        while self.is_alone(report).await {
            let mut tx = self.tx().await?;
            let provider = self.provider();
            let due =
                sweep_candidates::list_due(&mut tx, provider, grace_seconds, after.as_ref(), limit).await?;
            tx.commit().await?;
            let Some(last) = due.last() else { return Ok(()) };
            after = Some(last.clone());
            for candidate in &due {
                match self.remove_one(candidate, report).await? {
                    Ok(()) => refusals = 0,
                    Err(error) => {
                        report.problem(format!("{}: {error}", candidate.key));
                        refusals += 1;
                    }
                }
                if refusals >= REFUSALS_MAX {
                    report.problem("the store refused so many removals in a row that the rest waits");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn forget_owned(&self, report: &mut Report) -> Result<(), Error> {
        if self.options.is_dry_run {
            return Ok(());
        }
        let mut tx = self.tx().await?;
        report.forgotten += sweep_candidates::delete_owned(&mut tx, self.provider()).await? as u64;
        Ok(tx.commit().await?)
    }

    async fn remove_one(
        &self,
        candidate: &Candidate,
        report: &mut Report,
    ) -> Result<Result<(), StorageError>, Error> {
        let mut tx = self.tx().await?;
        let verdicts =
            sweep_candidates::judge(&mut tx, self.provider(), std::slice::from_ref(candidate)).await?;
        tx.commit().await?;
        match verdicts.first() {
            Some(Verdict::Waiting) => {}
            Some(Verdict::Owned) => {
                report.forgotten += 1;
                return self.forget(candidate).await.map(Ok);
            }
            // Its tenant has gone, or another sweeper was here: not ours to remove.
            _ => return Ok(Ok(())),
        }
        if !self.options.is_dry_run {
            if let Err(error) = self.take_away(candidate).await? {
                return Ok(Err(error));
            }
            self.forget(candidate).await?;
        }
        report.removed.add(candidate.size_bytes);
        Ok(Ok(()))
    }

    /// First the bytes, then the row: a crash in between leaves a row that says what to remove.
    ///
    /// Of an unfinished upload, what is under its key goes too, unless a row owns that: a store that was killed while it
    /// started the upload may list it for ever and know nothing of it when it is aborted (Garage 2.5 does, which writes the
    /// two in two steps). Deleting the key ends that too.
    async fn take_away(&self, candidate: &Candidate) -> Result<Result<(), StorageError>, Error> {
        let Some(id) = &candidate.multipart_id else {
            return Ok(self.store.delete(&candidate.key).await);
        };
        if let Err(error) = self.store.abort_multipart(&candidate.key, &MultipartId::new(id.as_str())).await {
            return Ok(Err(error));
        }
        let object = Candidate { multipart_id: None, ..candidate.clone() };
        let mut tx = self.tx().await?;
        let verdicts =
            sweep_candidates::judge(&mut tx, self.provider(), std::slice::from_ref(&object)).await?;
        tx.commit().await?;
        match verdicts.first() {
            Some(Verdict::Nobodys | Verdict::Waiting) => Ok(self.store.delete(&object.key).await),
            _ => Ok(Ok(())),
        }
    }

    async fn forget(&self, candidate: &Candidate) -> Result<(), Error> {
        if self.options.is_dry_run {
            return Ok(());
        }
        let mut tx = self.tx().await?;
        sweep_candidates::delete(&mut tx, self.provider(), candidate).await?;
        Ok(tx.commit().await?)
    }
}
