//! The use cases. One verb, one file: the list of files is the list of features.
//!
//! The signature of a use case says who may call it: `&Caller` (someone in a tenant), `&Operator` (the platform's own
//! role), or [`Principal`] where both may. Effects are rows in the same transaction as the change: audit entries, events.

pub mod access;
pub mod audit;
pub mod error;
pub mod files;
mod group;
mod idempotency;
pub mod imports;
pub mod integrity;
pub mod jobs;
mod outgoing;
mod pages;
pub mod policies;
mod preconditions;
pub mod quotas;
pub mod retention;
mod rotation;
pub mod storage;
pub mod tenants;
pub mod uploads;
pub mod webhooks;

use std::{collections::BTreeMap, sync::Arc};

pub use error::{Credentials, Error, Unfetched};
pub use rotation::Round;
use tokio_util::task::TaskTracker;

use self::{
    audit::Disclosures,
    files::count_downloads::{self, DownloadCounts},
    files::watch::Pulses,
    group::Group,
    quotas::recent::RecentQuotas,
    rotation::Rotation,
    tenants::TenantDirectory,
    uploads::{ByteBudget, Hashing, commit::Commits},
};
use crate::{
    config::{
        DownloadsConfig, ImportsConfig, ListsConfig, RetentionConfig, ScanningConfig, SweepingConfig,
        TenantsConfig, UploadsConfig, WatchesConfig, WebhooksConfig, WorkerConfig,
    },
    crypto::sealer::Sealer,
    db::{Database, blobs::DuePlace, files::DueFile, stray_objects::StrayPlace, uploads::ExpiredPlace},
    domain::{
        caller::{Caller, Operator},
        clock::{Clock, IdSource},
        ids::TenantId,
        policy::UnknownPreset,
    },
    storage::{ForeignBucket, Stores},
    telemetry::Metrics,
};

/// Whoever a request comes from, verified.
#[derive(Debug, Clone)]
pub enum Principal {
    /// Someone in a tenant.
    Caller(Caller),
    /// The platform's operator.
    Operator(Operator),
}

/// The limits that use cases keep, as configured.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "one field per section of the configuration")]
pub struct Limits {
    pub uploads: UploadsConfig,
    pub downloads: DownloadsConfig,
    pub watches: WatchesConfig,
    pub webhooks: WebhooksConfig,
    pub imports: ImportsConfig,
    pub lists: ListsConfig,
    pub retention: RetentionConfig,
    pub sweeping: SweepingConfig,
    pub worker: WorkerConfig,
    pub scanning: ScanningConfig,
    pub tenants: TenantsConfig,
    /// What every storage key begins with; may be empty.
    pub key_prefix: String,
}

/// What the use cases stand on. Shared by every entrance.
pub struct App {
    db: Database,
    stores: Stores,
    import_buckets: BTreeMap<String, ForeignBucket>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    page_tokens: Sealer,
    limits: Limits,
    metrics: Metrics,
    tenants: TenantDirectory,
    recent_quotas: RecentQuotas,
    budget: ByteBudget,
    hashing: Hashing,
    commits: Group<Commits>,
    disclosures: Group<Disclosures>,
    download_counts: DownloadCounts,
    watches: Pulses,
    rotations: Rotations,
    /// What must not be cut off when its request is: commits, clean-up after a client that left.
    tasks: TaskTracker,
}

/// How far the rounds of background work have come.
#[derive(Debug, Default)]
struct Rotations {
    expired_uploads: Rotation<ExpiredPlace>,
    due_blobs: Rotation<DuePlace>,
    due_files: Rotation<DueFile>,
    due_strays: Rotation<StrayPlace>,
    expiring_tenants: Rotation<TenantId>,
    deleting_tenants: Rotation<TenantId>,
}

/// The parts that an [`App`] is assembled from.
#[allow(missing_docs, reason = "the fields are the parts of their names")]
pub struct Parts {
    pub db: Database,
    pub stores: Stores,
    /// The buckets among the configured sources of imports, by name; none where nothing is imported.
    pub import_buckets: BTreeMap<String, ForeignBucket>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    pub page_tokens: Sealer,
    pub metrics: Metrics,
}

impl App {
    /// Puts the parts together.
    pub fn new(parts: Parts, limits: Limits) -> Result<Arc<Self>, UnknownPreset> {
        let Parts { db, stores, import_buckets, clock, ids, page_tokens, metrics } = parts;
        let tasks = TaskTracker::new();
        let uploads = &limits.uploads;
        let budget =
            ByteBudget::new(uploads.byte_budget_bytes, uploads.part_size_bytes, uploads.waiting_bytes_max());
        let observed = budget.clone();
        metrics.observe_byte_budget(move || observed.used_bytes());
        let commits = Commits::new(db.clone(), Arc::clone(&clock), metrics.clone(), &limits);
        let connections_max = limits.uploads.commit_connections_max;
        let batch_max = limits.uploads.commit_batch_max;
        Ok(Arc::new(Self {
            tenants: TenantDirectory::new(&limits.tenants)?,
            recent_quotas: RecentQuotas::new(),
            commits: Group::new(commits, connections_max, batch_max, tasks.clone()),
            disclosures: Group::new(Disclosures::new(db.clone()), connections_max, batch_max, tasks.clone()),
            db,
            stores,
            import_buckets,
            clock,
            ids,
            page_tokens,
            limits,
            metrics,
            download_counts: DownloadCounts::default(),
            watches: Pulses::default(),
            rotations: Rotations::default(),
            budget,
            hashing: Hashing::new(),
            tasks,
        }))
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The database, for the queue that background work is taken from.
    pub fn db(&self) -> &Database {
        &self.db
    }

    /// What is measured.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where ids come from.
    pub fn ids(&self) -> &Arc<dyn IdSource> {
        &self.ids
    }

    /// Whether nothing goes on beside the requests.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits for what must not be cut off: commits under way, clean-up after clients that left, counts in memory.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        if let Err(error) = count_downloads::flush(self).await {
            tracing::warn!(%error, "write the last download counts");
        }
    }
}
