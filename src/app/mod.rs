//! The use cases, one file each: the list of files is the list of features.
//!
//! The signature of a use case shows who may call it: a `&Caller` (a member of a tenant), an `&Operator` (the
//! operator of the platform), or a [`Principal`] (either). Effects such as audit entries and events are rows
//! that are written in the same transaction as the change.

pub mod access;
pub mod access_log;
pub mod audit;
mod blob_work;
pub mod credits;
pub mod error;
pub mod files;
pub mod grants;
mod group;
mod idempotency;
pub mod imports;
pub mod integrity;
pub mod jobs;
mod mail;
mod outgoing;
pub mod owner;
mod pages;
pub mod policies;
mod preconditions;
pub mod quotas;
pub mod rates;
pub mod refusals;
pub mod restore;
pub mod retention;
mod rotation;
mod rounds;
pub mod service_info;
pub mod shares;
pub mod storage;
mod tasks;
pub mod tenants;
pub mod uploads;
pub mod visitors;
pub mod webhooks;

use std::{collections::BTreeMap, sync::Arc};

pub use error::{
    CategoryUse, CredentialsError, Denial, Error, InvalidCredentials, PendingDeletion, QuotaShortage,
    RateEvent, RateScope, Resource, UserLimit, UserQuotaShortage, UserUsage, Workload,
};
pub use rounds::RoundReport;
pub use tasks::RunningCall;
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::{
    audit::DisclosureWriter,
    files::count_downloads::{self, DownloadCounts},
    files::watch::EventPoller,
    group::Group,
    owner::{OwnerParts, StoreOwners},
    quotas::cache::QuotaCache,
    rates::CallerRates,
    refusals::RefusalCounts,
    rotation::Rotation,
    shares::PasswordHashing,
    tasks::Tasks,
    tenants::{TenantDirectory, TenantStates},
    uploads::{ByteBudget, HashingLimiter, UploadCommitter},
};
pub use crate::storage::Progress;
use crate::{
    admission::shared_rates::SharedRates,
    config::{
        DownloadsConfig, ImportsConfig, ListsConfig, OwnerLimits, RateLimitsConfig, RetentionConfig,
        ScanningConfig, ScrubConfig, SmtpConfig, SweepingConfig, TenantPresets, TenantsConfig, UploadsConfig,
        WatchesConfig, WebhooksConfig, WorkerConfig,
    },
    crypto::sealer::Sealer,
    db::{
        Database, blobs::DueBlobCursor, file_grants::ExpiredGrants, files::DueFile,
        stray_objects::StrayObjectCursor, uploads::ExpiredUploadCursor,
    },
    domain::{
        caller::{Caller, Operator},
        clock::{Clock, IdSource, Timestamp},
        ids::TenantId,
        policy::{Policy, UnknownPreset},
    },
    storage::{BreakerOptions, GuardedStores, SourceBucket, Stores},
    telemetry::Metrics,
};

/// The verified sender of a request.
#[derive(Debug, Clone)]
pub enum Principal {
    /// A member of a tenant.
    Caller(Caller),
    /// The operator of the platform.
    Operator(Operator),
}

/// The configured limits of use cases.
#[derive(Debug, Clone)]
pub struct Limits {
    pub uploads: UploadsConfig,
    pub downloads: DownloadsConfig,
    pub watches: WatchesConfig,
    pub webhooks: WebhooksConfig,
    pub smtp: SmtpConfig,
    pub imports: ImportsConfig,
    pub lists: ListsConfig,
    pub retention: RetentionConfig,
    pub sweeping: SweepingConfig,
    pub scrub: ScrubConfig,
    /// The provider for verified copies of all blobs.
    pub replica_provider: Option<String>,
    pub worker: WorkerConfig,
    pub scanning: ScanningConfig,
    pub tenants: TenantsConfig,
    /// The names of the policies of new tenants.
    pub presets: TenantPresets,
    pub rate_limits: RateLimitsConfig,
    /// The checks that a store belongs to the database.
    pub owner: OwnerLimits,
    /// The prefix of every object key; may be empty.
    pub key_prefix: String,
}

/// The dependencies and shared state of the use cases. All entry points share one instance.
pub struct App {
    db: Database,
    /// Refuses writes and deletions if a store belongs to another database.
    stores: Stores,
    owners: StoreOwners,
    /// The stores as background work uses them.
    background_stores: GuardedStores,
    /// Identifies this process in reports to operators.
    process_id: Uuid,
    import_buckets: BTreeMap<String, SourceBucket>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    page_tokens: Sealer,
    limits: Limits,
    metrics: Metrics,
    tenants: TenantDirectory,
    tenant_states: TenantStates,
    quota_cache: QuotaCache,
    budget: ByteBudget,
    hashing: HashingLimiter,
    /// Hashes the passwords of shares.
    passwords: PasswordHashing,
    /// Limits the number of lookups for unverified visitors at a time.
    visitor_lookups: Arc<Semaphore>,
    commits: Group<UploadCommitter>,
    disclosures: Group<DisclosureWriter>,
    download_counts: DownloadCounts,
    event_poller: EventPoller,
    rates: CallerRates,
    refusals: RefusalCounts,
    rotations: Rotations,
    /// Limits the number of sweeps at a time.
    sweep_permits: Semaphore,
    /// Tasks that must survive the cancellation of their request: commits, and clean-up after disconnected
    /// clients.
    tasks: Tasks,
}

/// The positions of the rounds of background work.
#[derive(Debug, Default)]
struct Rotations {
    expired_reservations: Rotation<ExpiredUploadCursor>,
    expired_uploads: Rotation<ExpiredUploadCursor>,
    due_blobs: Rotation<DueBlobCursor>,
    due_files: Rotation<DueFile>,
    due_stray_objects: Rotation<StrayObjectCursor>,
    scrubbed_objects: Rotation<()>,
    replicated_blobs: Rotation<TenantId>,
    repaired_blobs: Rotation<TenantId>,
    expiring_tenants: Rotation<TenantId>,
    expired_grants: Rotation<ExpiredGrants>,
    deleting_tenants: Rotation<TenantId>,
    provisional_tenants: Rotation<TenantId>,
    measured_tenants: Rotation<TenantId>,
}

/// The parts of an [`App`].
pub struct Parts {
    pub db: Database,
    pub stores: Stores,
    /// The configured import sources that are buckets, by name.
    pub import_buckets: BTreeMap<String, SourceBucket>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    pub page_tokens: Sealer,
    pub metrics: Metrics,
    /// The rate limits that all processes share.
    pub shared_rates: Option<SharedRates>,
}

impl App {
    /// Assembles the use cases.
    ///
    /// # Errors
    /// Returns `UnknownPreset` if the configuration names a policy preset that does not exist.
    pub fn new(parts: Parts, limits: Limits) -> Result<Arc<Self>, UnknownPreset> {
        for preset in limits.presets.names() {
            Policy::preset(preset)?;
        }
        let Parts { db, stores, import_buckets, clock, ids, page_tokens, metrics, shared_rates } = parts;
        let tasks = Tasks::default();
        let owners = StoreOwners::new(OwnerParts {
            db: db.clone(),
            stores: stores.clone(),
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
            metrics: Some(metrics.clone()),
            limits: limits.owner,
            key_prefix: limits.key_prefix.clone(),
        });
        let background_stores = guard_stores(&owners.checked_stores(), &limits.worker);
        let breakers = background_stores.breakers().clone();
        metrics.observe_breakers(move || storage::breakers::read_levels(&breakers));
        let uploads = &limits.uploads;
        let budget =
            ByteBudget::new(uploads.byte_budget_bytes, uploads.part_size_bytes, uploads.waiting_bytes_max());
        let observed = budget.clone();
        metrics.observe_byte_budget(move || observed.used_bytes());
        let rates = CallerRates::new(&limits.rate_limits, shared_rates);
        let (hashing, passwords) = (HashingLimiter::new(), PasswordHashing::new());
        let event_poller = EventPoller::new(&limits.watches);
        observe_shares(&metrics, &budget, &hashing, &event_poller);
        let hashed = passwords.clone();
        metrics.observe_shares("passwords", move || hashed.status().into());
        observe_stores(&metrics, &stores);
        stores.iter().for_each(|store| metrics.start_scrub_counts(store.provider()));
        let commits = UploadCommitter::new(db.clone(), Arc::clone(&clock), metrics.clone(), &limits);
        let connections_max = limits.uploads.commit_connections_max;
        let batch_max = limits.uploads.commit_batch_max;
        let stores_swept_max = limits.sweeping.stores_max;
        Ok(Arc::new(Self {
            tenants: TenantDirectory::new(&limits.tenants),
            tenant_states: TenantStates::new(limits.tenants.stream_recheck_interval()),
            quota_cache: QuotaCache::new(),
            commits: Group::new(commits, connections_max, batch_max, tasks.clone()),
            disclosures: Group::new(
                DisclosureWriter::new(db.clone()),
                connections_max,
                batch_max,
                tasks.clone(),
            ),
            db,
            stores: owners.checked_stores(),
            owners,
            background_stores,
            process_id: ids.uuid(),
            import_buckets,
            clock,
            ids,
            page_tokens,
            limits,
            metrics,
            download_counts: DownloadCounts::default(),
            event_poller,
            rates,
            refusals: RefusalCounts::default(),
            rotations: Rotations::default(),
            sweep_permits: Semaphore::new(stores_swept_max),
            budget,
            hashing,
            passwords,
            visitor_lookups: Arc::new(Semaphore::new(visitors::LOOKUPS_MAX)),
            tasks,
        }))
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the database, which holds the job queue.
    pub fn db(&self) -> &Database {
        &self.db
    }

    /// Returns the checks that the stores belong to the database.
    pub fn owners(&self) -> &StoreOwners {
        &self.owners
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn ids(&self) -> &Arc<dyn IdSource> {
        &self.ids
    }

    /// Returns the names of the configured providers.
    pub fn list_providers(&self) -> Vec<String> {
        self.select_providers(None)
    }

    /// Returns this provider, or the names of all of them.
    pub fn select_providers(&self, provider: Option<&str>) -> Vec<String> {
        self.stores.select_providers(provider)
    }

    /// Returns whether no call is in progress, and no task that outlives its call.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_idle()
    }

    /// Counts a call as in progress until the returned value is dropped.
    pub fn start_call(&self) -> RunningCall {
        self.tasks.start_call()
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the limits of calls per second of callers.
    pub fn rates(&self) -> &CallerRates {
        &self.rates
    }

    /// Waits for calls that are ending, and for running commits and clean-up tasks, then writes the download
    /// counts and the refusals that are still in memory. The server has closed all connections.
    pub async fn drain(&self) {
        self.tasks.wait_until_idle().await;
        if let Err(error) = count_downloads::flush_download_counts(self).await {
            tracing::warn!(%error, "failed to write the last download counts");
        }
        refusals::write_refusals(self).await;
    }
}

/// Adds circuit breakers to the stores of background work.
fn guard_stores(stores: &Stores, config: &WorkerConfig) -> GuardedStores {
    let options = BreakerOptions {
        failures_max: config.breaker_failures_max,
        backoff_base: config.breaker_backoff_base(),
        backoff_max: config.breaker_backoff_max(),
    };
    GuardedStores::wrap(stores, options, config.store_call_timeout())
}

/// Reports how callers share the resources of the use cases.
fn observe_shares(metrics: &Metrics, budget: &ByteBudget, hashing: &HashingLimiter, watches: &EventPoller) {
    let (budget, hashing, watches) = (budget.clone(), hashing.clone(), watches.clone());
    metrics.observe_shares("upload_buffers", move || budget.status().into());
    metrics.observe_shares("hashing", move || hashing.status().into());
    metrics.observe_shares("watches", move || watches.status().into());
}

/// Reports how holders share the operations on the stores.
fn observe_stores(metrics: &Metrics, stores: &Stores) {
    let (operations, downloads) = (stores.clone(), stores.clone());
    metrics.observe_shares("storage", move || operations.operation_status().into());
    metrics.observe_shares("storage_downloads", move || downloads.download_status().into());
}
