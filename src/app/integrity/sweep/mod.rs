//! Deletes objects that a crash, a lost response or a failed clean-up left in the stores, in two steps. An
//! object without a row is *found* when it is older than the grace period. It is *deleted* in a later round
//! if it still has no row after another grace period.
//!
//! # Why objects in use are never deleted
//!
//! - A small file has no row while its bytes are being stored. Its commit is refused if its PUT is older than
//!   half of the grace period (`uploads/commit/batch.rs`), so an object older than the whole grace period has a row
//!   or never gets one.
//! - A multipart upload has a row from the start. The row owns all objects with its key until the end of the
//!   upload.
//! - Rows are looked up right before each deletion, in one statement.
//! - A round with an incomplete listing deletes nothing.
//! - Foreign objects are skipped: other prefixes, tenants that are not in this database, and names that are
//!   no valid keys.
//! - Nothing is deleted from a store that belongs to another database (`app/owner`).
//! - Until an operator decides about the objects of the lost hours of a restore (`domain/lost_hours.rs`),
//!   these objects are not recorded, and nothing is deleted.
//! - If most recent objects have no row, the database may be restored from a backup. Nothing is deleted then
//!   until an operator confirms that the database is the right one (`database_check.rs`).
//!
//! # The cost of a round
//!
//! Keys have the form `<prefix>/<tenant>/<category>/<day>/<blob>` and are listed in this order. A regular
//! round skips the old days of each category: it reads the pages of the recent days, and about one more page
//! for each category with more than one page of old objects. A full walk lists all objects, once in
//! `sweeping.full_walk_interval_seconds`. One page is in memory at a time. One process at a time sweeps a
//! store.

mod database_check;
mod delete;
mod find;
mod report;

use std::{sync::Arc, time::Duration};

use database_check::ObjectsByDay;
pub use report::{Amount, SweepReport};

use crate::{
    app::{App, Error, RoundReport, owner::StoreRefusal, uploads::expire},
    db::{SystemTx, lost_hours, sweep_candidates, sweeps, uploads},
    domain::lost_hours::LostHours,
    storage::ObjectStorage,
};

/// The options of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepOptions {
    /// The minimum age of an object without a row to be found, and the time from then until its deletion.
    pub grace: Duration,
    /// Whether to list all objects instead of the recent days only.
    pub is_full_walk: bool,
    /// Whether to report without deleting anything.
    pub is_dry_run: bool,
    /// Whether to delete even if most recent objects have no row, because no other database uses the store.
    pub is_database_trusted: bool,
}

impl SweepOptions {
    /// Returns the default options of the command, with the configured grace period.
    pub fn from_config(app: &App) -> Self {
        let grace = app.limits.sweeping.grace_period();
        Self { grace, is_full_walk: true, is_dry_run: false, is_database_trusted: false }
    }
}

/// Abandons uploads with an expired lease, then sweeps every store. Returns one report per store.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable. Errors of a store are in its report.
pub async fn sweep_stores(app: &App, options: SweepOptions) -> Result<Vec<SweepReport>, Error> {
    let mut reports = Vec::new();
    for store in app.stores.iter() {
        let mut report = SweepReport::new(store.provider(), options);
        if let Some(problem) = find_owner_problem(app, store.provider(), options).await {
            report.add_problem(problem);
            reports.push(report);
            continue;
        }
        report.expired_uploads = expire_uploads(app, store, options).await?;
        let mut lock = app.db.system_tx().await?;
        if sweeps::lock(&mut lock, store.provider()).await? {
            Sweep::new(app, store, &mut lock, options).run(&mut report).await?;
            release_lock(lock, store).await;
        } else {
            report.add_problem("another worker, or another `strongroom sweep`, is sweeping this store");
        }
        reports.push(report);
    }
    Ok(reports)
}

/// Sweeps each store whose interval has passed, as [`sweep_due_store`] does.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn sweep_due_stores(app: &App) -> Result<RoundReport, Error> {
    let mut total = RoundReport::default();
    for store in app.background_stores.iter() {
        total += sweep_due_store(app, store.provider()).await?;
    }
    Ok(total)
}

/// Sweeps a store if its interval has passed, as background work. Counts the deleted objects as done and the
/// problems as failed. Never has more: the sweep has a schedule of its own. Does nothing while the circuit
/// breaker of the store is open.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable, and `ProviderUnknown` if the provider is not
/// configured.
pub async fn sweep_due_store(app: &App, provider: &str) -> Result<RoundReport, Error> {
    let config = &app.limits.sweeping;
    let store = app.background_stores.get(provider)?;
    let mut total = RoundReport::default();
    if !config.enabled || app.background_stores.rejects_calls(provider) {
        return Ok(total);
    }
    if let Some(problem) = find_owner_problem(app, provider, SweepOptions::from_config(app)).await {
        tracing::debug!(provider, problem, "skipped sweep");
        return Ok(total);
    }
    // A sweep occupies a connection. While others run, this store stays due.
    let Ok(_permit) = app.sweep_permits.try_acquire() else { return Ok(total) };
    let mut lock = app.db.system_tx().await?;
    if !sweeps::lock(&mut lock, provider).await? {
        return Ok(total);
    }
    let intervals = (config.interval_seconds, config.full_walk_interval_seconds);
    let due = sweeps::get_due(&mut lock, provider, intervals.0, intervals.1).await?;
    if due.is_due {
        let options = SweepOptions { is_full_walk: due.is_full_walk_due, ..SweepOptions::from_config(app) };
        let mut report = SweepReport::new(provider, options);
        Sweep::new(app, store, &mut lock, options).run(&mut report).await?;
        report.log();
        let done = usize::try_from(report.deleted.count).unwrap_or(usize::MAX);
        total = RoundReport { done, failed: report.problems.len(), has_more: false };
    }
    release_lock(lock, store).await;
    Ok(total)
}

/// Returns why a sweep may not delete from a store. A dry run deletes nothing.
async fn find_owner_problem(app: &App, provider: &str, options: SweepOptions) -> Option<String> {
    if options.is_dry_run {
        return None;
    }
    match app.owners.check_before_deletions(provider).await {
        // The sweep counts their objects, and deletes nothing.
        Ok(None | Some(StoreRefusal::Undecided { .. })) => None,
        Ok(Some(refusal)) => Some(refusal.to_string()),
        Err(error) => Some(format!("failed to check the owner of the store: {error}")),
    }
}

/// Releases the lock of a sweep. An error does not affect the completed round.
async fn release_lock(lock: SystemTx, store: &Arc<dyn ObjectStorage>) {
    if let Err(error) = lock.commit().await {
        tracing::warn!(provider = store.provider(), %error, "failed to release sweep lock");
    }
}

async fn expire_uploads(
    app: &App,
    store: &Arc<dyn ObjectStorage>,
    options: SweepOptions,
) -> Result<u64, Error> {
    if options.is_dry_run {
        return expire::count_expired_uploads(app, store.provider()).await;
    }
    let expired = expire::expire_all_uploads_in_store(app, store.as_ref()).await?;
    Ok(expired.done as u64)
}

/// One round of sweeping one store.
struct Sweep<'a> {
    app: &'a App,
    store: &'a Arc<dyn ObjectStorage>,
    /// The transaction that holds the lock on sweeping this store.
    lock: &'a mut SystemTx,
    objects_by_day: ObjectsByDay,
    /// The lost hours of all restores of this store.
    lost_hours: Vec<LostHours>,
    options: SweepOptions,
}

impl<'a> Sweep<'a> {
    fn new(
        app: &'a App,
        store: &'a Arc<dyn ObjectStorage>,
        lock: &'a mut SystemTx,
        options: SweepOptions,
    ) -> Self {
        Self { app, store, lock, objects_by_day: ObjectsByDay::default(), lost_hours: Vec::new(), options }
    }
}

impl Sweep<'_> {
    async fn run(&mut self, report: &mut SweepReport) -> Result<(), Error> {
        let mut tx = self.tx().await?;
        self.lost_hours = lost_hours::list(&mut tx, self.provider()).await?;
        tx.commit().await?;
        for undecided in self.lost_hours.iter().filter(|lost| lost.is_undecided()) {
            report.add_problem(format!("nothing was deleted: {undecided}"));
        }
        let is_undecided = self.lost_hours.iter().any(LostHours::is_undecided);
        let is_complete = self.find_unowned(report).await?;
        match self.objects_by_day.find_mismatch().filter(|_| !self.options.is_database_trusted) {
            _ if !is_complete || is_undecided => {}
            Some(mismatch) => report.add_problem(mismatch.to_string()),
            None => self.delete_due(report).await?,
        }
        let mut tx = self.app.db.system_tx().await?;
        let waiting = sweep_candidates::count_all(&mut tx, self.provider()).await?;
        report.waiting = Amount::new(waiting.count, waiting.bytes);
        report.open_uploads = uploads::count_open(&mut tx, self.provider()).await?;
        if is_complete && !self.options.is_dry_run {
            sweeps::record_sweep(&mut tx, self.provider(), self.options.is_full_walk).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Returns whether this round still holds the lock. Checked before each page, because the lock is lost
    /// with its connection, and a server may close an idle connection.
    async fn has_lock(&mut self, report: &mut SweepReport) -> bool {
        match sweeps::lock(self.lock, self.store.provider()).await {
            Ok(true) => return true,
            Ok(false) => report.add_problem("another sweeper took over the lock"),
            Err(error) => {
                report.add_problem(format!("the lock of this sweep was lost, so it ended early: {error}"))
            }
        }
        false
    }

    fn provider(&self) -> &str {
        self.store.provider()
    }

    fn batch_size(&self) -> usize {
        self.app.limits.sweeping.batch_max
    }

    async fn tx(&self) -> Result<SystemTx, Error> {
        Ok(self.app.db.system_tx().await?)
    }
}
