//! Runs ticks on a schedule. Every process polls the schedule; the process that advances a tick's next time
//! runs it, so that one process runs each tick. A tick that was interrupted or has more work to do becomes
//! due again.

use std::time::Duration;

use futures::{FutureExt as _, TryFutureExt as _, future::BoxFuture};

use super::catch_panic;
use crate::{
    app::{
        App, Error, RoundReport,
        files::{delete_expired::enqueue_expired_file_deletions, purge_trash::purge_trash},
        integrity::delete_stray_objects::delete_stray_objects,
        integrity::sweep::sweep_due_stores,
        retention::enforce_retention,
        storage::delete_due_blobs::delete_due_blobs,
        tenants::{erase::erase_deleting_tenants, settle::settle_first_calls},
        uploads::expire::expire_uploads,
    },
    db::{
        DbError,
        jobs::get_depth,
        schedules::{self, ClaimedTick},
    },
};

/// A piece of scheduled work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Enforces retention: creates upcoming partitions and drops expired data.
    Retention,
    /// Abandons uploads whose lease has expired.
    ExpireUploads,
    /// Enqueues jobs that delete expired files.
    FindExpiredFiles,
    /// Purges files whose retention in the trash has ended.
    PurgeTrash,
    /// Deletes blobs that are due for deletion.
    DeleteBlobs,
    /// Erases one part of each tenant that is being deleted.
    EraseTenants,
    /// Settles tenants whose first calls have ended without success.
    SettleFirstCalls,
    /// Deletes objects left behind by moves between stores.
    DeleteStrayObjects,
    /// Sweeps the stores that are due for a sweep.
    Sweep,
}

impl Tick {
    /// Ticks that finish quickly.
    pub const SHORT: &'static [Self] = &[
        Self::Retention,
        Self::ExpireUploads,
        Self::FindExpiredFiles,
        Self::PurgeTrash,
        Self::DeleteBlobs,
        Self::EraseTenants,
        Self::SettleFirstCalls,
        Self::DeleteStrayObjects,
    ];
    /// Ticks that may take hours.
    pub const LONG: &'static [Self] = &[Self::Sweep];

    /// Returns the name in the schedule and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::ExpireUploads => "expire_uploads",
            Self::FindExpiredFiles => "find_expired_files",
            Self::PurgeTrash => "purge_trash",
            Self::DeleteBlobs => "delete_blobs",
            Self::EraseTenants => "erase_tenants",
            Self::SettleFirstCalls => "settle_first_calls",
            Self::DeleteStrayObjects => "delete_stray_objects",
            Self::Sweep => "sweep",
        }
    }

    /// Runs the tick once. The futures of the ticks are large, so each is boxed and never moved.
    fn run(self, app: &App) -> BoxFuture<'_, Result<RoundReport, Error>> {
        match self {
            Self::Retention => enforce_retention(app).map_ok(|()| RoundReport::default()).boxed(),
            Self::ExpireUploads => expire_uploads(app).boxed(),
            Self::FindExpiredFiles => enqueue_expired_file_deletions(app).boxed(),
            Self::PurgeTrash => purge_trash(app).boxed(),
            Self::DeleteBlobs => delete_due_blobs(app).boxed(),
            Self::EraseTenants => erase_deleting_tenants(app).boxed(),
            Self::SettleFirstCalls => settle_first_calls(app).boxed(),
            Self::DeleteStrayObjects => delete_stray_objects(app).boxed(),
            Self::Sweep => sweep_due_stores(app).boxed(),
        }
    }
}

/// Runs those of the given ticks that are due and that no other process has claimed. Returns the sum of their
/// reports. A tick that fails runs again at its next time.
pub async fn run_due_ticks(app: &App, ticks: &[Tick]) -> RoundReport {
    record_queue_metrics(app).await;
    let mut total = RoundReport::default();
    let names: Vec<&str> = ticks.iter().map(|tick| tick.name()).collect();
    let claimed_ticks = match claim_due_ticks(app, &names).await {
        Ok(claimed_ticks) => claimed_ticks,
        Err(error) => {
            tracing::warn!(%error, "failed to poll the schedule");
            return total;
        }
    };
    for claimed in claimed_ticks {
        let Some(tick) = ticks.iter().find(|tick| tick.name() == claimed.name) else { continue };
        let report = run_tick_now(app, *tick).await;
        total += report;
        if report.has_more
            && let Err(error) = make_due(app, &claimed).await
        {
            tracing::warn!(tick = claimed.name, %error, "failed to make tick due");
        }
    }
    total
}

/// Runs a tick now, whether due or not, and logs its report. A tick that fails as a whole counts as one failed
/// item.
pub async fn run_tick_now(app: &App, tick: Tick) -> RoundReport {
    let tick_failed = RoundReport { failed: 1, ..RoundReport::default() };
    match catch_panic(tick.run(app)).await {
        Ok(Ok(report)) => {
            let RoundReport { done, failed, has_more } = report;
            if done > 0 || failed > 0 {
                tracing::info!(tick = tick.name(), done, failed, has_more, "ran tick");
            }
            report
        }
        Ok(Err(error)) => {
            let cause = std::error::Error::source(&error);
            tracing::warn!(tick = tick.name(), %error, ?cause, "failed to run tick");
            tick_failed
        }
        Err(panic) => {
            tracing::error!(tick = tick.name(), panic, "tick panicked");
            tick_failed
        }
    }
}

async fn claim_due_ticks(app: &App, names: &[&str]) -> Result<Vec<ClaimedTick>, DbError> {
    let mut tx = app.db().system_tx().await?;
    let claimed_ticks = schedules::claim_due(&mut tx, names, app.limits().worker.tick_seconds).await?;
    tx.commit().await?;
    Ok(claimed_ticks)
}

async fn make_due(app: &App, claimed: &ClaimedTick) -> Result<(), DbError> {
    let mut tx = app.db().system_tx().await?;
    schedules::make_due(&mut tx, claimed).await?;
    tx.commit().await
}

/// Records the queue's depth in the metrics of this process.
async fn record_queue_metrics(app: &App) {
    let measured = async {
        let mut tx = app.db().system_tx().await?;
        let depth = get_depth(&mut tx).await?;
        tx.commit().await?;
        Ok::<_, DbError>(depth)
    };
    match measured.await {
        Ok(depth) => {
            let count = |count: i64| u64::try_from(count).unwrap_or_default();
            let counts = [
                ("ready", count(depth.ready)),
                ("running", count(depth.running)),
                ("parked", count(depth.parked)),
            ];
            let oldest = Duration::try_from_secs_f64(depth.oldest_due_seconds).unwrap_or_default();
            app.metrics().set_queued_jobs(&counts, oldest);
        }
        Err(error) => tracing::warn!(%error, "failed to measure the queue"),
    }
}
