//! Removes what a crash, a lost answer or a refused clean-up left in the stores. Never in one step: what no row owns is
//! *found* when it is older than the grace period, and *removed* in a later round when it has had no row for another grace
//! period since.
//!
//! # Why nothing that lives is ever removed
//!
//! - A small file has no row while its bytes are being stored. Its commit is refused when its PUT is older than half the
//!   grace period (`uploads/commit.rs`), so an object that is older than the whole has its row or never gets one.
//! - A file in parts has its upload's row from the start, and that row owns whatever has its key until the upload's end.
//! - Rows are looked for right before each removal, in one statement.
//! - A round whose listing broke off removes nothing: a store that answers half is not one to act upon.
//! - What is not ours is left alone: other prefixes, tenants that this database does not know, names that are no keys.
//! - Where most of what was stored lately has no row, nothing is removed until somebody says that the database is the right
//!   one (`doubt.rs`): it may be a clone, or restored from a backup. That is a guard against a mistake, no proof: a clone
//!   must not sweep the store of its original.
//!
//! # What a round costs
//!
//! Keys are `<prefix>/<tenant>/<category>/<day>/<blob>`, and a listing is in their order. A usual round skips over the old
//! days of each category: about one page per category with more old objects than a page has, and the pages of the young
//! days. Once in `sweeping.full_walk_interval_seconds` it walks through everything. One page is in memory at a time. One
//! replica sweeps a store at a time.

mod doubt;
mod find;
mod remove;
mod report;

use std::{sync::Arc, time::Duration};

use doubt::Days;
pub use report::{Amount, Report};

use crate::{
    app::{App, Error, uploads::expire},
    db::{SystemTx, sweep_candidates, sweeps, uploads},
    storage::ObjectStorage,
};

/// How to sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepOptions {
    /// How old something without a row must be to be found, and how long it waits from then on.
    pub grace: Duration,
    /// Walk through everything, not the young days only.
    pub is_full_walk: bool,
    /// Look and report, change nothing.
    pub is_dry_run: bool,
    /// Remove also where most of what was stored lately has no row: the store is this database's alone.
    pub is_database_trusted: bool,
}

impl SweepOptions {
    /// As configured: what the command does when it is told nothing else.
    pub fn configured(app: &App) -> Self {
        let grace = app.limits.sweeping.grace();
        Self { grace, is_full_walk: true, is_dry_run: false, is_database_trusted: false }
    }
}

/// Gives up the uploads whose lease ran out, then sweeps every store; answers one report a store.
///
/// # Errors
/// When the database does not answer. What a store refuses is in its report.
pub async fn sweep(app: &App, options: SweepOptions) -> Result<Vec<Report>, Error> {
    let mut reports = Vec::new();
    for store in app.stores.iter() {
        let mut report = Report::new(store.provider(), options);
        report.expired_uploads = expired_uploads(app, store, options).await?;
        let mut lock = app.db.system_tx().await?;
        if sweeps::lock(&mut lock, store.provider()).await? {
            Sweep { app, store, lock: &mut lock, days: Days::default(), options }.run(&mut report).await?;
            release(lock, store).await;
        } else {
            report.problem("another replica, or another `strongroom sweep`, is sweeping this store");
        }
        reports.push(report);
    }
    Ok(reports)
}

/// What background work does: one round for each store for which it is time; answers how much was removed.
///
/// # Errors
/// When the database does not answer.
pub async fn sweep_when_due(app: &App) -> Result<usize, Error> {
    let config = &app.limits.sweeping;
    if !config.enabled {
        return Ok(0);
    }
    let mut removed = 0;
    for store in app.stores.iter() {
        let mut lock = app.db.system_tx().await?;
        if !sweeps::lock(&mut lock, store.provider()).await? {
            continue;
        }
        let intervals = (config.interval_seconds, config.full_walk_interval_seconds);
        let due = sweeps::due(&mut lock, store.provider(), intervals.0, intervals.1).await?;
        if due.is_due {
            let options =
                SweepOptions { is_full_walk: due.is_full_walk_due, ..SweepOptions::configured(app) };
            let mut report = Report::new(store.provider(), options);
            Sweep { app, store, lock: &mut lock, days: Days::default(), options }.run(&mut report).await?;
            report.log();
            removed += usize::try_from(report.removed.count).unwrap_or(usize::MAX);
        }
        release(lock, store).await;
    }
    Ok(removed)
}

/// What a round did is done, whatever becomes of its lock.
async fn release(lock: SystemTx, store: &Arc<dyn ObjectStorage>) {
    if let Err(error) = lock.commit().await {
        tracing::warn!(provider = store.provider(), %error, "release the lock of a sweep");
    }
}

async fn expired_uploads(
    app: &App,
    store: &Arc<dyn ObjectStorage>,
    options: SweepOptions,
) -> Result<u64, Error> {
    if options.is_dry_run {
        return expire::count(app, store.provider()).await;
    }
    let mut ended = 0;
    loop {
        let round = expire::expire_in(app, store.as_ref()).await?;
        ended += round.done as u64;
        if !round.has_more {
            return Ok(ended);
        }
    }
}

/// One round over one store.
struct Sweep<'a> {
    app: &'a App,
    store: &'a Arc<dyn ObjectStorage>,
    /// The transaction whose lock keeps others from sweeping this store.
    lock: &'a mut SystemTx,
    days: Days,
    options: SweepOptions,
}

impl Sweep<'_> {
    async fn run(&mut self, report: &mut Report) -> Result<(), Error> {
        let is_complete = self.find(report).await?;
        match self.days.doubt().filter(|_| !self.options.is_database_trusted) {
            _ if !is_complete => {}
            Some(doubt) => report.problem(doubt.to_string()),
            None => self.remove(report).await?,
        }
        let mut tx = self.app.db.system_tx().await?;
        let waiting = sweep_candidates::waiting(&mut tx, self.provider()).await?;
        report.waiting = Amount::of(waiting.count, waiting.bytes);
        report.open_uploads = uploads::count_open(&mut tx, self.provider()).await?;
        if is_complete && !self.options.is_dry_run {
            sweeps::record(&mut tx, self.provider(), self.options.is_full_walk).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Whether this is still the one that sweeps: asked before each page, because the lock goes with its connection, and a
    /// server may end one that has nothing to do.
    async fn is_alone(&mut self, report: &mut Report) -> bool {
        match sweeps::lock(self.lock, self.store.provider()).await {
            Ok(true) => return true,
            Ok(false) => report.problem("another sweeper took over"),
            Err(error) => {
                report.problem(format!("the lock of this sweep was lost, so it ended early: {error}"))
            }
        }
        false
    }

    fn provider(&self) -> &str {
        self.store.provider()
    }

    fn batch(&self) -> usize {
        self.app.limits.sweeping.batch_max
    }

    async fn tx(&self) -> Result<SystemTx, Error> {
        Ok(self.app.db.system_tx().await?)
    }
}
