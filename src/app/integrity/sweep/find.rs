//! The first pass: what is in the store, is older than the grace period and has no row.

use chrono::{Days, NaiveDate};

use super::{Report, Sweep};
use crate::{
    app::Error,
    db::sweep_candidates::{self, Candidate, Verdict},
    domain::{clock::Timestamp, object_key::ObjectKey},
    storage::{MultipartInfo, StorageError},
};

/// A key is made before its bytes arrive, and a slow small file may take a while: days that are this much older than the
/// grace period still count as young.
const YOUNG_DAYS_MORE: u64 = 2;

impl Sweep<'_> {
    /// Lists objects and unfinished uploads and remembers what nobody owns. Answers whether the store showed all of it.
    pub(super) async fn find(&mut self, report: &mut Report) -> Result<bool, Error> {
        for listed in [self.find_objects(report).await?, self.find_multiparts(report).await?] {
            match listed {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    report.problem(format!("the listing broke off, so nothing was removed: {error}"));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn find_objects(&mut self, report: &mut Report) -> Result<Result<bool, StorageError>, Error> {
        let mut after: Option<ObjectKey> = None;
        loop {
            if !self.is_alone(report).await {
                return Ok(Ok(false));
            }
            let page = match self.store.list(&self.prefix(), after.as_ref(), self.batch()).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let last = page.objects.last().map(|object| object.key.clone());
            let mut candidates = Vec::new();
            for object in page.objects {
                report.listed_objects += 1;
                if self.may_be_swept(&object.key, object.modify_time, report) {
                    let size_bytes = object.size_bytes;
                    candidates.push(Candidate { key: object.key, multipart_id: None, size_bytes });
                }
            }
            self.remember(candidates, report).await?;
            match last {
                Some(last) if !page.is_last => after = Some(self.skip_old_days(last)),
                None if !page.is_last => return Ok(Err(standstill("list objects"))),
                _ => return Ok(Ok(true)),
            }
        }
    }

    async fn find_multiparts(&mut self, report: &mut Report) -> Result<Result<bool, StorageError>, Error> {
        let mut after: Option<MultipartInfo> = None;
        loop {
            if !self.is_alone(report).await {
                return Ok(Ok(false));
            }
            let page = match self.store.list_multiparts(&self.prefix(), after.as_ref(), self.batch()).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let mut candidates = Vec::new();
            for multipart in &page.multiparts {
                report.listed_multiparts += 1;
                if self.may_be_swept(&multipart.key, multipart.start_time, report) {
                    let multipart_id = Some(multipart.id.as_str().to_owned());
                    candidates.push(Candidate { key: multipart.key.clone(), multipart_id, size_bytes: 0 });
                }
            }
            self.remember(candidates, report).await?;
            match page.multiparts.into_iter().next_back() {
                Some(last) if !page.is_last => after = Some(last),
                None if !page.is_last => return Ok(Err(standstill("list multipart uploads"))),
                _ => return Ok(Ok(true)),
            }
        }
    }

    /// What every key of ours begins with.
    fn prefix(&self) -> String {
        let prefix = &self.app.limits.key_prefix;
        if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
    }

    fn may_be_swept(&self, key: &ObjectKey, since: Timestamp, report: &mut Report) -> bool {
        // `a` is also the beginning of `a/b`, which may be somebody else's.
        if key.prefix() != self.app.limits.key_prefix {
            report.skipped_foreign += 1;
            return false;
        }
        // What the store's clock places in the future is young.
        let age = (self.app.clock.now() - since).to_std().unwrap_or_default();
        if age < self.options.grace {
            report.skipped_young += 1;
            return false;
        }
        true
    }

    async fn remember(&mut self, mut candidates: Vec<Candidate>, report: &mut Report) -> Result<(), Error> {
        if candidates.is_empty() {
            return Ok(());
        }
        let mut tx = self.tx().await?;
        let verdicts = sweep_candidates::judge(&mut tx, self.provider(), &candidates).await?;
        report.skipped_foreign +=
            verdicts.iter().filter(|verdict| **verdict == Verdict::Foreign).count() as u64;
        for (candidate, verdict) in candidates.iter().zip(&verdicts) {
            if candidate.multipart_id.is_none() && *verdict != Verdict::Foreign {
                self.days.count(candidate.key.day(), *verdict == Verdict::Owned);
            }
        }
        let mut verdicts = verdicts.into_iter();
        candidates.retain(|_| verdicts.next() == Some(Verdict::Nobodys));
        for candidate in &candidates {
            report.found.add(candidate.size_bytes);
        }
        if !self.options.is_dry_run {
            sweep_candidates::insert(&mut tx, self.provider(), &candidates).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Where to go on behind a key: right behind it, or, when its day is old, where the young days of its category begin.
    fn skip_old_days(&self, last: ObjectKey) -> ObjectKey {
        if self.options.is_full_walk {
            return last;
        }
        match self.oldest_young_day() {
            Some(young) if last.day() < young => last.start_of(young).unwrap_or(last),
            _ => last,
        }
    }

    fn oldest_young_day(&self) -> Option<NaiveDate> {
        let grace = chrono::Duration::from_std(self.options.grace).ok()?;
        let day = self.app.clock.now().checked_sub_signed(grace)?.date_naive();
        day.checked_sub_days(Days::new(YOUNG_DAYS_MORE))
    }
}

/// A page without anything that is not the last either: there is nothing to go on from.
fn standstill(operation: &'static str) -> StorageError {
    StorageError::new(crate::storage::StorageErrorKind::Damaged, operation)
        .with_source("the store answered an empty page and says that more follows")
}
