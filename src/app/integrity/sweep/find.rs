//! The first pass: finds objects that are older than the grace period and have no row.

use chrono::{Days, NaiveDate};

use super::{Sweep, SweepReport};
use crate::{
    app::Error,
    db::sweep_candidates::{self, Ownership, SweepCandidate},
    domain::{
        clock::Timestamp,
        object_key::{ObjectKey, listing_prefix},
    },
    storage::{MultipartInfo, StorageError},
};

/// Days that are older than the grace period by at most this many days still count as recent. A key contains
/// the day of its creation, and the bytes of a slow upload are stored later.
const RECENT_DAYS_MARGIN: u64 = 2;

impl Sweep<'_> {
    /// Lists objects and unfinished uploads and records those without a row. Returns whether the listing is
    /// complete.
    pub(super) async fn find_unowned(&mut self, report: &mut SweepReport) -> Result<bool, Error> {
        for listed in [self.find_objects(report).await?, self.find_multiparts(report).await?] {
            match listed {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    report.add_problem(format!("failed to list objects; no objects were deleted: {error}"));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn find_objects(&mut self, report: &mut SweepReport) -> Result<Result<bool, StorageError>, Error> {
        let prefix = listing_prefix(&self.app.limits.key_prefix);
        let mut after: Option<ObjectKey> = None;
        loop {
            if !self.has_lock(report).await {
                return Ok(Ok(false));
            }
            let page = match self.store.list(&prefix, after.as_ref(), self.batch_size()).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let last = page.objects.last().map(|object| object.key.clone());
            let (mut candidates, mut discarded) = (Vec::new(), Vec::new());
            for object in page.objects {
                report.listed_objects += 1;
                let (since, size_bytes) = (object.modify_time, object.size_bytes);
                if self.may_be_swept(&object.key, since, size_bytes, report) {
                    let is_discarded = self.lost_hours.iter().any(|lost| lost.contains(since));
                    let list = if is_discarded { &mut discarded } else { &mut candidates };
                    list.push(SweepCandidate { key: object.key, multipart_id: None, size_bytes });
                }
            }
            self.record_candidates(candidates, true, report).await?;
            // These objects do not count as a sign of a wrong database, because an operator decided about them.
            self.record_candidates(discarded, false, report).await?;
            match last {
                Some(last) if !page.is_last => after = Some(self.skip_old_days(last)),
                None if !page.is_last => return Ok(Err(stalled_listing_error("list objects"))),
                _ => return Ok(Ok(true)),
            }
        }
    }

    async fn find_multiparts(
        &mut self,
        report: &mut SweepReport,
    ) -> Result<Result<bool, StorageError>, Error> {
        let prefix = listing_prefix(&self.app.limits.key_prefix);
        let mut after: Option<MultipartInfo> = None;
        loop {
            if !self.has_lock(report).await {
                return Ok(Ok(false));
            }
            let page = match self.store.list_multiparts(&prefix, after.as_ref(), self.batch_size()).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let mut candidates = Vec::new();
            for multipart in &page.multiparts {
                report.listed_multiparts += 1;
                if self.may_be_swept(&multipart.key, multipart.start_time, 0, report) {
                    let multipart_id = Some(multipart.id.as_str().to_owned());
                    candidates.push(SweepCandidate {
                        key: multipart.key.clone(),
                        multipart_id,
                        size_bytes: 0,
                    });
                }
            }
            self.record_candidates(candidates, true, report).await?;
            match page.multiparts.into_iter().next_back() {
                Some(last) if !page.is_last => after = Some(last),
                None if !page.is_last => return Ok(Err(stalled_listing_error("list multipart uploads"))),
                _ => return Ok(Ok(true)),
            }
        }
    }

    fn may_be_swept(
        &self,
        key: &ObjectKey,
        since: Timestamp,
        size_bytes: u64,
        report: &mut SweepReport,
    ) -> bool {
        // A listing with the prefix `a` also contains `a/b`, which may be the prefix of another user of the
        // store.
        if key.prefix() != self.app.limits.key_prefix {
            report.skipped_foreign += 1;
            return false;
        }
        // An object with a time in the future, by the store's clock, counts as recent.
        let age = (self.app.clock.now() - since).to_std().unwrap_or_default();
        if age < self.options.grace {
            report.skipped_young += 1;
            return false;
        }
        if self.lost_hours.iter().any(|lost| lost.is_undecided() && lost.contains(since)) {
            report.undecided.add(size_bytes);
            return false;
        }
        true
    }

    /// Records the candidates without a row. They show whether the database belongs to the store if
    /// `is_counted`.
    async fn record_candidates(
        &mut self,
        mut candidates: Vec<SweepCandidate>,
        is_counted: bool,
        report: &mut SweepReport,
    ) -> Result<(), Error> {
        if candidates.is_empty() {
            return Ok(());
        }
        let mut tx = self.tx().await?;
        let ownerships = sweep_candidates::check_ownership(&mut tx, self.provider(), &candidates).await?;
        report.skipped_foreign +=
            ownerships.iter().filter(|ownership| **ownership == Ownership::Foreign).count() as u64;
        for (candidate, ownership) in candidates.iter().zip(&ownerships) {
            if is_counted && candidate.multipart_id.is_none() && *ownership != Ownership::Foreign {
                self.objects_by_day.count(candidate.key.day(), *ownership == Ownership::Owned);
            }
        }
        let mut ownerships = ownerships.into_iter();
        candidates.retain(|_| ownerships.next() == Some(Ownership::Unowned));
        for candidate in &candidates {
            report.found.add(candidate.size_bytes);
        }
        if !self.options.is_dry_run {
            sweep_candidates::insert(&mut tx, self.provider(), &candidates).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Returns the key to continue the listing after: the last key, or, if its day is old, the start of the
    /// recent days of its category.
    fn skip_old_days(&self, last: ObjectKey) -> ObjectKey {
        if self.options.is_full_walk {
            return last;
        }
        match self.first_recent_day() {
            Some(recent) if last.day() < recent => last.day_start(recent).unwrap_or(last),
            _ => last,
        }
    }

    fn first_recent_day(&self) -> Option<NaiveDate> {
        let grace = chrono::Duration::from_std(self.options.grace).ok()?;
        let day = self.app.clock.now().checked_sub_signed(grace)?.date_naive();
        day.checked_sub_days(Days::new(RECENT_DAYS_MARGIN))
    }
}

/// Returns the error for an empty page that is not the last one: the listing cannot be continued.
fn stalled_listing_error(operation: &'static str) -> StorageError {
    StorageError::new(crate::storage::StorageErrorKind::Damaged, operation)
        .with_source("the store returned an empty page that is not the last one")
}
