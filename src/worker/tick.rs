//! The ticks: pieces of scheduled work. A tick that works on stores has a part for each store, so that a store
//! that hangs delays only the work on it.

use std::time::Duration;

use futures::{FutureExt as _, TryFutureExt as _, future::BoxFuture};

use crate::{
    app::{
        App, Error, Progress, RoundReport,
        files::{delete_expired::enqueue_expired_file_deletions, purge_trash::purge_trash},
        grants::delete_expired::delete_expired_grants,
        integrity::{
            delete_stray_objects::delete_stray_objects_in, scrub::scrub_due_objects_in,
            sweep::sweep_due_store,
        },
        jobs::retry_parked::retry_parked_jobs,
        quotas::measure::measure_usage,
        retention::enforce_retention,
        storage::{
            delete_due_blobs::delete_due_blobs_in, repair::repair_blobs_in, replicate::replicate_blobs_to,
        },
        tenants::{erase::erase_deleting_tenants, settle::settle_first_calls},
        uploads::expire::{delete_expired_uploads_in, release_expired_uploads},
    },
    telemetry::metrics::TickLabels,
};

/// A run of the work on blobs is cancelled after this many times the limit of the work on one blob, which fails first:
/// a run is cancelled only if something else hangs.
const STALLS_PER_RUN: u32 = 3;

/// When a run is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunLimit {
    /// After this time.
    Duration(Duration),
    /// After a time without progress.
    WithoutProgress(Duration),
}

/// A piece of scheduled work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tick {
    /// Enforces retention: creates upcoming partitions and drops expired data.
    Retention,
    /// Releases the reservations of uploads whose lease has expired.
    ExpireUploads,
    /// Deletes the bytes of uploads whose lease has expired.
    DeleteExpiredUploads,
    /// Enqueues jobs that delete expired files.
    FindExpiredFiles,
    /// Deletes expired grants.
    DeleteExpiredGrants,
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
    /// Attempts parked jobs again.
    RetryParkedJobs,
    /// Measures what tenants store.
    MeasureUsage,
    /// Sweeps the stores that are due for a sweep.
    Sweep,
    /// Reads and verifies the objects that were verified longest ago.
    Scrub,
    /// Copies blobs to the replica provider.
    ReplicateBlobs,
    /// Repairs missing and damaged blobs from their copy.
    RepairBlobs,
}

impl Tick {
    /// Ticks that finish quickly.
    pub const SHORT: &'static [Self] = &[
        Self::Retention,
        Self::ExpireUploads,
        Self::DeleteExpiredUploads,
        Self::FindExpiredFiles,
        Self::DeleteExpiredGrants,
        Self::PurgeTrash,
        Self::DeleteBlobs,
        Self::EraseTenants,
        Self::SettleFirstCalls,
        Self::DeleteStrayObjects,
        Self::RetryParkedJobs,
    ];
    /// Ticks that may take hours, or that read all rows of tenants.
    pub const LONG: &'static [Self] =
        &[Self::MeasureUsage, Self::Sweep, Self::Scrub, Self::ReplicateBlobs, Self::RepairBlobs];

    /// Returns the name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::ExpireUploads => "expire_uploads",
            Self::DeleteExpiredUploads => "delete_expired_uploads",
            Self::FindExpiredFiles => "find_expired_files",
            Self::DeleteExpiredGrants => "delete_expired_grants",
            Self::PurgeTrash => "purge_trash",
            Self::DeleteBlobs => "delete_blobs",
            Self::EraseTenants => "erase_tenants",
            Self::SettleFirstCalls => "settle_first_calls",
            Self::DeleteStrayObjects => "delete_stray_objects",
            Self::RetryParkedJobs => "retry_parked_jobs",
            Self::MeasureUsage => "measure_usage",
            Self::Sweep => "sweep",
            Self::Scrub => "scrub",
            Self::ReplicateBlobs => "replicate_blobs",
            Self::RepairBlobs => "repair_blobs",
        }
    }

    /// Returns whether the tick has a part for each store.
    const fn is_per_store(self) -> bool {
        match self {
            Self::DeleteExpiredUploads
            | Self::DeleteBlobs
            | Self::DeleteStrayObjects
            | Self::Sweep
            | Self::Scrub
            | Self::ReplicateBlobs
            | Self::RepairBlobs => true,
            Self::Retention
            | Self::ExpireUploads
            | Self::FindExpiredFiles
            | Self::DeleteExpiredGrants
            | Self::PurgeTrash
            | Self::EraseTenants
            | Self::SettleFirstCalls
            | Self::RetryParkedJobs
            | Self::MeasureUsage => false,
        }
    }
}

/// A tick, or the part of a tick that concerns one store. Each runs as a task of its own, with its own row in
/// the schedule and its own deadline.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TickPart {
    tick: Tick,
    /// The provider of the store; empty for a tick without parts.
    provider: String,
}

impl TickPart {
    /// Returns the parts of ticks.
    pub fn list(app: &App, ticks: &[Tick]) -> Vec<Self> {
        let providers = app.list_providers();
        let parts_of = |tick: &Tick| match tick.is_per_store() {
            true => providers.iter().map(|name| Self { tick: *tick, provider: name.clone() }).collect(),
            false => vec![Self { tick: *tick, provider: String::new() }],
        };
        ticks.iter().flat_map(parts_of).collect()
    }

    /// Returns the name in the schedule, such as `retention` or `delete_blobs/local`.
    pub fn schedule_name(&self) -> String {
        match self.provider.as_str() {
            "" => self.tick.name().to_owned(),
            provider => format!("{}/{provider}", self.tick.name()),
        }
    }

    /// Returns the labels in metrics.
    pub(super) fn labels(&self) -> TickLabels {
        TickLabels { tick: self.tick.name(), provider: self.provider.clone() }
    }

    /// Returns when a run is cancelled. A blob of any size can be read and copied, so work on blobs has no deadline.
    pub(super) fn limit(&self, app: &App) -> RunLimit {
        match self.tick {
            Tick::Sweep => RunLimit::Duration(app.limits().sweeping.deadline()),
            Tick::Scrub | Tick::ReplicateBlobs | Tick::RepairBlobs => {
                RunLimit::WithoutProgress(app.limits().scrub.stall_limit() * STALLS_PER_RUN)
            }
            _ => RunLimit::Duration(app.limits().worker.tick_deadline()),
        }
    }

    /// Runs the part once. The futures of the ticks are large, so each is boxed and never moved.
    pub(super) fn run<'a>(
        &'a self,
        app: &'a App,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<RoundReport, Error>> {
        let provider = self.provider.as_str();
        match self.tick {
            Tick::Retention => enforce_retention(app).map_ok(|()| RoundReport::default()).boxed(),
            Tick::ExpireUploads => release_expired_uploads(app).boxed(),
            Tick::DeleteExpiredUploads => delete_expired_uploads_in(app, provider).boxed(),
            Tick::FindExpiredFiles => enqueue_expired_file_deletions(app).boxed(),
            Tick::DeleteExpiredGrants => delete_expired_grants(app).boxed(),
            Tick::PurgeTrash => purge_trash(app).boxed(),
            Tick::DeleteBlobs => delete_due_blobs_in(app, provider).boxed(),
            Tick::EraseTenants => erase_deleting_tenants(app).boxed(),
            Tick::SettleFirstCalls => settle_first_calls(app).boxed(),
            Tick::DeleteStrayObjects => delete_stray_objects_in(app, provider).boxed(),
            Tick::RetryParkedJobs => retry_parked_jobs(app).boxed(),
            Tick::MeasureUsage => measure_usage(app).boxed(),
            Tick::Sweep => sweep_due_store(app, provider).boxed(),
            Tick::Scrub => scrub_due_objects_in(app, provider, progress).boxed(),
            Tick::ReplicateBlobs => replicate_blobs_to(app, provider, progress).boxed(),
            Tick::RepairBlobs => repair_blobs_in(app, provider, progress).boxed(),
        }
    }
}
