//! Compares the database with the stores, both ways, and applies the decision of an operator about the objects of the
//! lost hours.
//!
//! One page of a listing is in memory at a time, and the report lists a limited number of objects. Without a
//! decision, nothing is changed, so the comparison also works before the database is made the owner of its stores.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    outcome::ReadoptOutcome,
    quarantine::quarantine_objects,
    readopt::{readopt_object, relink_stray},
    report::{MissingBlob, ObjectTotals, RestoreReport, UnknownOrigin},
};
use crate::{
    app::{App, Error, owner::OwnerState, uploads::expire::end_uploads_of_object},
    db::{
        fsck::{self, CheckedBlob},
        lost_hours, quarantined_objects,
        unknown_objects::{self, Knowledge},
    },
    domain::{
        clock::Timestamp,
        lost_hours::LostHours,
        object_key::{ObjectKey, listing_prefix},
    },
    storage::{ObjectInfo, ObjectStorage, ObjectStorageExt as _},
};

/// The number of objects or rows in a page.
const PAGE: usize = 1_000;

/// The number of objects that are looked up at the same time.
const LOOKUPS_MAX: usize = 16;

/// The maximum number of versions that are listed for a missing object.
const VERSIONS_MAX: i64 = 20;

/// The decision about the unknown objects of the lost hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreDecision {
    /// Make them files of a recovery category.
    Readopt,
    /// Keep them, for this reason. Nothing deletes them.
    Quarantine { reason: String },
    /// Let sweeps delete them.
    Discard,
}

/// The options of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreOptions {
    /// The provider; all of them if `None`.
    pub provider: Option<String>,
    /// `None` to change nothing.
    pub decision: Option<RestoreDecision>,
    /// The maximum number of objects of each kind in a report.
    pub entries_max: usize,
}

/// Receives progress reports.
pub trait RestoreProgress: Send {
    /// Called after each page, and after each object that was readopted, with the counts of one store so far.
    fn report_progress(&mut self, report: &RestoreReport);
}

/// Compares the database with the stores. Returns one report for each store.
///
/// # Errors
/// Returns an error if a provider is not configured, or if the database or a store is unavailable. With a decision,
/// returns `StoreNotOwned` if a store belongs to another database; nothing was changed then.
pub async fn check_restore(
    app: &App,
    options: &RestoreOptions,
    progress: &mut dyn RestoreProgress,
) -> Result<Vec<RestoreReport>, Error> {
    let mut providers = app.select_providers(options.provider.as_deref());
    // The copy of an object that is a file again is a leftover, not a file.
    providers.sort_by_key(|provider| app.limits.replica_provider.as_ref() == Some(provider));
    if options.decision.is_some() {
        for provider in &providers {
            if let OwnerState::NotOwned(not_owner) = app.owners.check_store(provider).await? {
                return Err(Error::StoreNotOwned(not_owner));
            }
        }
    }
    let mut reports = Vec::new();
    for provider in &providers {
        let mut report = RestoreReport::new(provider, options.entries_max);
        let store = app.stores.get(provider)?;
        Box::pin(check_store(app, store, options.decision.as_ref(), &mut report, progress)).await?;
        reports.push(report);
    }
    Box::pin(check_blobs(app, &mut reports, progress)).await?;
    Ok(reports)
}

/// Looks for objects that the database does not know.
async fn check_store(
    app: &App,
    store: &Arc<dyn ObjectStorage>,
    decision: Option<&RestoreDecision>,
    report: &mut RestoreReport,
    progress: &mut dyn RestoreProgress,
) -> Result<(), Error> {
    let restores = list_lost_hours(app, store.provider(), report).await?;
    let now = app.clock.now();
    let check = ObjectCheck { app, store: store.as_ref(), restores, decision, now };
    let prefix = listing_prefix(&app.limits.key_prefix);
    let mut after: Option<ObjectKey> = None;
    loop {
        let page = store.list(&prefix, after.as_ref(), PAGE).await?;
        after = page.objects.last().map(|object| object.key.clone());
        check.check_page(page.objects, report, progress).await?;
        progress.report_progress(report);
        match &after {
            _ if page.is_last => break,
            Some(_) => {}
            None => return Err(Error::internal("the store returned an empty page that is not the last one")),
        }
    }
    check.record_decision(report).await?;
    let mut tx = app.db.system_tx().await?;
    report.restores = match report.is_owner {
        true => lost_hours::list(&mut tx, store.provider()).await?,
        false => check.restores,
    };
    let totals = quarantined_objects::count_all(&mut tx, store.provider()).await?;
    tx.commit().await?;
    let positive = |number: i64| u64::try_from(number).unwrap_or_default();
    report.quarantine = ObjectTotals { count: positive(totals.count), bytes: positive(totals.bytes) };
    Ok(())
}

/// Returns the lost hours of each restore. Those of a store that was not adopted yet end now.
async fn list_lost_hours(
    app: &App,
    provider: &str,
    report: &mut RestoreReport,
) -> Result<Vec<LostHours>, Error> {
    let mut tx = app.db.system_tx().await?;
    let mut restores = lost_hours::list(&mut tx, provider).await?;
    tx.commit().await?;
    let owner = app.owners.inspect_owner(provider).await?;
    report.is_owner = owner.owner.is_some() && owner.mismatch.is_none();
    if !report.is_owner {
        let start_time = app.owners.find_snapshot_time(provider).await?.unwrap_or(Timestamp::UNIX_EPOCH);
        let end_time = app.clock.now().max(start_time);
        restores.push(LostHours {
            id: app.ids.uuid(),
            provider: provider.to_owned(),
            start_time,
            end_time,
            decide_time: None,
        });
    }
    Ok(restores)
}

/// The check of the objects of one store.
struct ObjectCheck<'a> {
    app: &'a App,
    store: &'a dyn ObjectStorage,
    /// The lost hours of each restore.
    restores: Vec<LostHours>,
    decision: Option<&'a RestoreDecision>,
    now: Timestamp,
}

impl ObjectCheck<'_> {
    async fn check_page(
        &self,
        objects: Vec<ObjectInfo>,
        report: &mut RestoreReport,
        progress: &mut dyn RestoreProgress,
    ) -> Result<(), Error> {
        report.listed_objects += objects.len() as u64;
        let is_own = |object: &ObjectInfo| object.key.prefix() == self.app.limits.key_prefix;
        let (own, foreign): (Vec<_>, Vec<_>) = objects.into_iter().partition(is_own);
        report.foreign += foreign.len() as u64;
        let keys: Vec<ObjectKey> = own.iter().map(|object| object.key.clone()).collect();
        let mut tx = self.app.db.system_tx().await?;
        let knowledge = unknown_objects::check(&mut tx, &keys).await?;
        tx.commit().await?;
        let (mut lost, mut strays, mut of_uploads) = (Vec::new(), Vec::new(), HashSet::new());
        for (object, knowledge) in own.into_iter().zip(knowledge) {
            let is_lost = self.restores.iter().any(|lost| lost.contains(object.modify_time));
            match knowledge {
                Knowledge::Known => continue,
                Knowledge::Stray => {
                    if is_lost {
                        strays.push(object);
                    }
                    continue;
                }
                Knowledge::Foreign => {
                    report.foreign += 1;
                    if is_lost {
                        report.foreign_lost_hours.add(object.size_bytes);
                    }
                    continue;
                }
                // The object of an upload that was open in the restored state, and was completed since.
                Knowledge::OfUpload if !is_lost => continue,
                Knowledge::OfUpload => {
                    of_uploads.insert(object.key.clone());
                }
                Knowledge::Unknown => {}
            }
            let age = self.age(&object);
            let origin = match is_lost {
                true => UnknownOrigin::LostHours,
                false if age >= self.app.limits.sweeping.overdue_age() => UnknownOrigin::Overdue,
                false => UnknownOrigin::Recent,
            };
            report.add_unknown(&object, origin, age);
            if is_lost {
                lost.push(object);
            }
        }
        self.relink_strays(&strays, report).await?;
        self.apply_decision(lost, &of_uploads, report, progress).await
    }

    fn age(&self, object: &ObjectInfo) -> Duration {
        (self.now - object.modify_time).to_std().unwrap_or_default()
    }

    /// Returns whether a small file may be committed with this object: it is younger than all lost hours, and the
    /// commit is not too late yet (`uploads/commit/batch.rs`).
    fn may_be_in_progress(&self, object: &ObjectInfo) -> bool {
        let is_later = self.restores.iter().all(|lost| object.modify_time > lost.end_time);
        is_later && self.age(object) < self.app.limits.sweeping.grace_period() / 2
    }

    /// Keeps the stray objects that stored versions need, whatever happens to the objects that no version needs.
    async fn relink_strays(&self, strays: &[ObjectInfo], report: &mut RestoreReport) -> Result<(), Error> {
        if self.decision.is_none() {
            return Ok(());
        }
        for object in strays {
            match Box::pin(relink_stray(self.app, self.store, object)).await? {
                ReadoptOutcome::Left(reason) => report.add_left(object, reason),
                ReadoptOutcome::Readopted => report.readopted.add(object.size_bytes),
                ReadoptOutcome::Leftover => {}
            }
        }
        Ok(())
    }

    async fn apply_decision(
        &self,
        lost: Vec<ObjectInfo>,
        of_uploads: &HashSet<ObjectKey>,
        report: &mut RestoreReport,
        progress: &mut dyn RestoreProgress,
    ) -> Result<(), Error> {
        let Some(decision) = self.decision else { return Ok(()) };
        // A sweep deletes no object of an upload that becomes a file.
        let is_left =
            |object: &ObjectInfo| *decision != RestoreDecision::Discard && self.may_be_in_progress(object);
        let (running, lost): (Vec<_>, Vec<_>) = lost.into_iter().partition(is_left);
        for object in &running {
            let hours = self.app.limits.sweeping.grace_period().as_secs() / 2 / 3_600;
            let reason =
                format!("object may belong to an upload in progress; repeat the command in {hours} h");
            report.add_left(object, reason);
        }
        if *decision != RestoreDecision::Discard {
            for object in lost.iter().filter(|object| of_uploads.contains(&object.key)) {
                Box::pin(end_uploads_of_object(self.app, &object.key)).await?;
            }
        }
        match decision {
            RestoreDecision::Discard => {
                lost.iter().for_each(|object| report.discarded.add(object.size_bytes));
                Ok(())
            }
            RestoreDecision::Quarantine { reason } => {
                quarantine_objects(self.app, self.store.provider(), &lost, reason).await?;
                lost.iter().for_each(|object| report.quarantined.add(object.size_bytes));
                Ok(())
            }
            RestoreDecision::Readopt => {
                for object in &lost {
                    match Box::pin(readopt_object(self.app, self.store, object)).await? {
                        ReadoptOutcome::Readopted => report.readopted.add(object.size_bytes),
                        ReadoptOutcome::Leftover => report.discarded.add(object.size_bytes),
                        ReadoptOutcome::Left(reason) => report.add_left(object, reason),
                    }
                    progress.report_progress(report);
                }
                Ok(())
            }
        }
    }

    /// Marks the lost hours as decided, unless objects are left.
    async fn record_decision(&self, report: &RestoreReport) -> Result<(), Error> {
        if self.decision.is_none() || report.left.count > 0 {
            return Ok(());
        }
        let mut tx = self.app.db.system_tx().await?;
        for undecided in self.restores.iter().filter(|lost| lost.is_undecided()) {
            lost_hours::decide(&mut tx, undecided.id).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// Looks for blobs whose object is missing.
async fn check_blobs(
    app: &App,
    reports: &mut [RestoreReport],
    progress: &mut dyn RestoreProgress,
) -> Result<(), Error> {
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let mut after = None;
    loop {
        let mut tx = app.db.system_tx().await?;
        let page = fsck::list_blobs(&mut tx, after, limit).await?;
        tx.commit().await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.cursor());
        for report in &mut *reports {
            let store = app.stores.get(&report.provider)?.as_ref();
            let needed: Vec<&CheckedBlob> = page
                .iter()
                .filter(|checked| checked.is_needed && checked.blob.provider == report.provider)
                .collect();
            report.checked_blobs += needed.len() as u64;
            let lookups = needed.into_iter().map(|checked| async move {
                Ok::<_, Error>((checked, store.find_object(&checked.blob.key).await?.is_none()))
            });
            let found: Vec<(&CheckedBlob, bool)> =
                stream::iter(lookups).buffered(LOOKUPS_MAX).try_collect().await?;
            for (checked, is_missing) in found {
                if is_missing {
                    add_missing(app, checked, report).await?;
                }
            }
            progress.report_progress(report);
        }
    }
}

async fn add_missing(app: &App, checked: &CheckedBlob, report: &mut RestoreReport) -> Result<(), Error> {
    let mut tx = app.db.system_tx().await?;
    let versions =
        unknown_objects::list_versions(&mut tx, checked.tenant, checked.blob.id, VERSIONS_MAX).await?;
    tx.commit().await?;
    report.add_missing(MissingBlob {
        tenant: checked.tenant,
        key: checked.blob.key.to_string(),
        size_bytes: checked.blob.size_bytes,
        versions,
    });
    Ok(())
}
