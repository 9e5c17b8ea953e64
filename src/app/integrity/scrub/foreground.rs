//! `strongroom scrub`: reads the objects of a pass now, without the limits of rate and window.

use std::time::Duration;

use super::DueScrubs;
use crate::{
    app::{App, Error, owner::StoreRefusal, rotation::Rotation, rounds::run_round},
    db::{scrub_counts, scrubs},
    domain::clock::Timestamp,
    storage::Progress,
};

/// The pause in which workers verify the objects that they have claimed, and the number of such pauses.
const WAIT: Duration = Duration::from_secs(1);
const WAITS_MAX: u32 = 10;

/// The options of a run in the foreground.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Whether to start a new pass, which reads all objects, instead of continuing the current one.
    pub is_new_pass: bool,
    /// Whether to count the objects without reading them.
    pub is_dry_run: bool,
}

/// The report of a run over one provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ScrubReport {
    pub provider: String,
    pub is_dry_run: bool,
    /// The number of objects that are intact.
    pub verified_objects: u64,
    /// The bytes that were read.
    pub read_bytes: u64,
    /// The number of objects that are missing or damaged.
    pub damaged_objects: u64,
    /// The number of objects that could not be read, or that another read showed to be intact.
    pub failed_objects: u64,
    /// The number of objects that the pass must still read; those that other processes read are among them.
    pub left_objects: u64,
}

/// Receives progress reports.
pub trait ScrubProgress: Send {
    /// Called after some objects, with the counts so far.
    fn report_progress(&mut self, report: &ScrubReport);
}

/// Reads the rest of the pass of a provider, beside the workers. A pass that begins in the meantime is left to them.
///
/// # Errors
/// Returns `StoreNotOwned` if the store belongs to another database, `ProviderUnknown` if the provider is not
/// configured, and `DatabaseUnavailable` if the database is unreachable.
pub async fn scrub_provider(
    app: &App,
    provider: &str,
    options: ScrubOptions,
    progress: &mut dyn ScrubProgress,
) -> Result<ScrubReport, Error> {
    let read = Progress::default();
    let store = read.watch(app.background_stores.get(provider)?);
    let mut report = ScrubReport {
        provider: provider.to_owned(),
        is_dry_run: options.is_dry_run,
        ..ScrubReport::default()
    };
    if options.is_dry_run {
        report.left_objects = count_left(app, provider, options.is_new_pass).await?;
        return Ok(report);
    }
    if let Some(StoreRefusal::NotOwner(not_owner)) = app.owners.check_before_deletions(provider).await? {
        return Err(Error::StoreNotOwned(not_owner));
    }
    let pass_start = begin_pass(app, provider, options).await?;
    let work = DueScrubs { only_pass: Some(pass_start), ..DueScrubs::new(app, store.as_ref(), &read, false) };
    let rotation = Rotation::default();
    let mut waits = 0;
    loop {
        let round = Box::pin(run_round(&work, &rotation)).await?;
        report.verified_objects = work.counts.verified();
        report.damaged_objects = work.counts.damaged();
        report.failed_objects = work.counts.failed();
        report.read_bytes = work.counts.bytes();
        progress.report_progress(&report);
        if round.done > 0 || round.failed > 0 {
            continue;
        }
        report.left_objects = count_before(app, provider, pass_start).await?;
        if report.left_objects == 0 || report.failed_objects > 0 || waits == WAITS_MAX {
            return Ok(report);
        }
        waits += 1;
        tokio::time::sleep(WAIT).await;
    }
}

/// Returns the start of the pass to read.
async fn begin_pass(app: &App, provider: &str, options: ScrubOptions) -> Result<Timestamp, Error> {
    let mut tx = app.db.system_tx().await?;
    let mut pass = scrubs::lock_pass(&mut tx, provider).await?;
    if options.is_new_pass {
        scrubs::start_pass(&mut tx, provider).await?;
        pass = scrubs::lock_pass(&mut tx, provider).await?;
    }
    tx.commit().await?;
    Ok(pass.start_time)
}

/// Counts the objects that a run would read.
async fn count_left(app: &App, provider: &str, is_new_pass: bool) -> Result<u64, Error> {
    let mut tx = app.db.system_tx().await?;
    let pass = scrubs::lock_pass(&mut tx, provider).await?;
    tx.commit().await?;
    let before = if is_new_pass { pass.now } else { pass.start_time };
    count_before(app, provider, before).await
}

async fn count_before(app: &App, provider: &str, before: Timestamp) -> Result<u64, Error> {
    let mut tx = app.db.system_tx().await?;
    let left = scrub_counts::count_left(&mut tx, provider, before).await?;
    tx.commit().await?;
    Ok(u64::try_from(left.object_count).unwrap_or_default())
}
