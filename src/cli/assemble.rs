//! Wires the parts of the service together. No other module depends on all of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    monitoring::{MonitoredParts, Monitoring},
    providers::{open_import_buckets, open_stores_with},
    start_error::StartError,
    system_ids,
};
use crate::{
    app::{App, Limits, Parts, owner::StoreOwners, rates::open_shared_rates},
    config::Config,
    crypto::sealer::Sealer,
    db::{Database, DatabaseOptions},
    domain::{
        clock::{Clock, SyncedClock, SystemClock},
        digest::Digest,
        policy::{Policy, ScanRule},
    },
    grpc::{
        GrpcServer,
        auth::{Authenticator, DevIssuer},
    },
    storage::{Stores, Traced},
    telemetry::{Health, Metrics, metrics::PoolState},
    worker,
};

/// How long a start waits for the checks that the stores belong to the database.
const OWNER_CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the worker may take, after its drain, to release the jobs that the drain interrupted.
const WORKER_RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A server process that is ready to run.
pub struct Service {
    app: Arc<App>,
    monitored: MonitoredParts,
    authenticator: Authenticator,
    config: Config,
    has_worker: bool,
}

/// Opens the database and the stores, and validates them before the first request. With `dev_issuer` the
/// service also accepts HS256 tokens, which the configuration cannot enable.
///
/// # Errors
/// Returns an error that names the configuration key or the database role to fix.
pub async fn assemble_service(
    config: Config,
    metrics: Metrics,
    dev_issuer: Option<&DevIssuer>,
) -> Result<Service, StartError> {
    check_presets(&config)?;
    warn_about_plaintext(&config, true);
    let (synced_clock, ids) = (SyncedClock::new(SystemClock), system_ids());
    let clock: Arc<dyn Clock> = synced_clock.clone();
    let database = Database::open(&database_options(&config))?;
    database.check_pooler().await?;
    database.check_roles().await?;
    database.check_durability(config.database.allow_unsafe).await?;
    database.check_schema().await?;
    synced_clock.follow(database.measure_clock(synced_clock.local()).await?);
    observe_pool(&metrics, &database);
    let traced = |store| Traced::wrap(store, metrics.clone());
    let stores = open_stores_with(&config.storage, &clock, &ids, traced)?;
    let page_tokens = configured_sealer(&config)?;
    let mut authenticator = Authenticator::open(&config.auth, Arc::clone(&clock))
        .await
        .map_err(|error| StartError::Auth(error.into()))?;
    if let Some(issuer) = dev_issuer {
        authenticator = authenticator.with_dev_secret(issuer);
    }
    let import_buckets = open_import_buckets(&config.imports, &config.storage, &ids)?;
    let parts = Parts {
        db: database.clone(),
        stores: stores.clone(),
        import_buckets,
        clock,
        ids,
        page_tokens,
        metrics: metrics.clone(),
        shared_rates: open_shared_rates(&config.limits, &metrics)?,
    };
    let app = App::new(parts, limits(&config))?;
    tracing::info!(bound = %config.memory_bound(), "memory bound");
    let owners = check_owners(&app, &config).await;
    let monitored =
        MonitoredParts { database, stores, owners, health: Health::new(), metrics, clock: synced_clock };
    Ok(Service { app, monitored, authenticator, config, has_worker: false })
}

/// A worker process that is ready to run.
pub(super) struct Worker {
    app: Arc<App>,
    monitored: MonitoredParts,
    config: Config,
}

/// Opens the database and the stores for background work, and checks the database roles and schema.
pub(super) async fn assemble_worker(config: Config, metrics: Metrics) -> Result<Worker, StartError> {
    warn_about_plaintext(&config, false);
    let sealer = configured_sealer(&config)?;
    let synced_clock = SyncedClock::new(SystemClock);
    let (app, database, stores) = open_app(&config, metrics.clone(), sealer, synced_clock.clone())?;
    database.check_pooler().await?;
    database.check_roles().await?;
    database.check_durability(config.database.allow_unsafe).await?;
    database.check_schema().await?;
    synced_clock.follow(database.measure_clock(synced_clock.local()).await?);
    observe_pool(&metrics, &database);
    let owners = check_owners(&app, &config).await;
    let monitored =
        MonitoredParts { database, stores, owners, health: Health::new(), metrics, clock: synced_clock };
    Ok(Worker { app, monitored, config })
}

impl Worker {
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Runs jobs and ticks until `shutdown` resolves, then drains: reports not ready, and gives running jobs
    /// `server.drain_seconds` to finish.
    pub(super) async fn run(
        self,
        edge: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), StartError> {
        let stop = CancellationToken::new();
        let health = self.monitored.health.clone();
        let stopped = stop.clone().cancelled_owned();
        let monitoring = Monitoring::start(self.monitored, edge, &self.config.edge, stopped);
        let drain_on_shutdown = async {
            shutdown.await;
            tracing::info!("started draining");
            health.start_draining();
            stop.cancel();
        };
        let work =
            worker::run_worker(Arc::clone(&self.app), self.config.server.drain_timeout(), stop.clone());
        tokio::join!(work, drain_on_shutdown);
        if timeout(self.config.server.drain_timeout(), self.app.drain()).await.is_err() {
            tracing::warn!("failed to finish background tasks before the drain timeout");
        }
        monitoring.stop().await
    }
}

/// Assembles the use cases for maintenance commands, which serve no requests and run no jobs.
pub(super) async fn assemble_maintenance_app(
    config: &Config,
    metrics: Metrics,
) -> Result<Arc<App>, StartError> {
    // These commands issue no page tokens, so without a configured key, a random one that is lost at exit is enough.
    // It opens no labels of objects.
    let sealer = match config.secrets.page_token_key() {
        Some(_) => configured_sealer(config)?,
        None => {
            let key = Digest::compute(system_ids().uuid().as_bytes());
            Sealer::new(key.as_bytes()).map_err(|_| StartError::PageTokenKey)?
        }
    };
    let clock = SyncedClock::new(SystemClock);
    let (app, database, _) = open_app(config, metrics, sealer, clock.clone())?;
    clock.follow(database.measure_clock(clock.local()).await?);
    Ok(app)
}

/// Returns the sealer for page tokens and webhook secrets. Every server and worker must use the same key.
fn configured_sealer(config: &Config) -> Result<Sealer, StartError> {
    let key = config.secrets.page_token_key().ok_or(StartError::PageTokenKey)?;
    Sealer::new(key.expose_secret()).map_err(|_| StartError::PageTokenKey)
}

fn open_app(
    config: &Config,
    metrics: Metrics,
    page_tokens: Sealer,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<App>, Database, Stores), StartError> {
    let ids = system_ids();
    let database = Database::open(&database_options(config))?;
    let traced = |store| Traced::wrap(store, metrics.clone());
    let stores = open_stores_with(&config.storage, &clock, &ids, traced)?;
    let parts = Parts {
        db: database.clone(),
        stores: stores.clone(),
        // Imports run only in a server, as part of their RPC.
        import_buckets: BTreeMap::new(),
        clock,
        ids,
        page_tokens,
        metrics,
        shared_rates: None,
    };
    Ok((App::new(parts, limits(config))?, database, stores))
}

impl Service {
    /// Returns the configuration of the service.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the use cases, for other code in the same process.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Returns the health that the service will report.
    pub fn health(&self) -> &Health {
        &self.monitored.health
    }

    /// Runs background work in this process too.
    #[must_use]
    pub fn with_worker(self) -> Self {
        Self { has_worker: true, ..self }
    }

    /// Serves until `shutdown` resolves, then drains: reports not ready, cancels requests and jobs that are
    /// still running after `server.drain_seconds`, and waits up to the same time for commits and clean-up to
    /// finish.
    ///
    /// # Errors
    /// Returns an error if a listener fails.
    pub async fn run(
        self,
        grpc: TcpListener,
        edge: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), StartError> {
        let stop = CancellationToken::new();
        let stopped = || stop.clone().cancelled_owned();
        let work = self.has_worker.then(|| {
            tokio::spawn(worker::run_worker(
                Arc::clone(&self.app),
                self.config.server.drain_timeout(),
                stop.clone(),
            ))
        });
        let counts =
            tokio::spawn(worker::download_counts::write_download_counts(Arc::clone(&self.app), stopped()));
        let refusals = tokio::spawn(worker::refusals::write_refusals(Arc::clone(&self.app), stopped()));
        let partitions =
            tokio::spawn(worker::partitions::create_partitions(Arc::clone(&self.app), stopped()));
        let monitoring = Monitoring::start(self.monitored.clone(), edge, &self.config.edge, stopped());
        let (health, stop_on_signal) = (self.monitored.health.clone(), stop.clone());
        let signal = tokio::spawn(async move {
            shutdown.await;
            tracing::info!("started draining");
            health.start_draining();
            stop_on_signal.cancel();
        });
        let server = GrpcServer {
            app: Arc::clone(&self.app),
            authenticator: Arc::new(self.authenticator),
            health: self.monitored.health.clone(),
            metrics: self.monitored.metrics.clone(),
        };
        let served = server.serve(&self.config, grpc, stopped()).await;
        // If the server failed, stop the other tasks too.
        stop.cancel();
        signal.abort();
        if timeout(self.config.server.drain_timeout(), self.app.drain()).await.is_err() {
            tracing::warn!("commits or clean-up were still running at the end of the drain");
        }
        if let Some(mut work) = work {
            match timeout(self.config.server.drain_timeout() + WORKER_RELEASE_TIMEOUT, &mut work).await {
                Ok(ended) => ended.map_err(|error| StartError::Work(error.into()))?,
                Err(_) => {
                    work.abort();
                    tracing::warn!("background work was still running at the end of the drain");
                }
            }
        }
        counts.abort();
        refusals.abort();
        partitions.abort();
        // Probes and metrics are served until the last request has finished.
        monitoring.stop().await?;
        served.map_err(|error| StartError::Serve(error.into()))
    }
}

/// Checks the owners of the stores. A process starts in any case: from a store of another database it reads, and a
/// store that is unreachable is checked again before the first write.
async fn check_owners(app: &App, config: &Config) -> StoreOwners {
    if timeout(OWNER_CHECK_TIMEOUT, app.owners().check_stores()).await.is_err() {
        tracing::warn!("failed to check the owners of the stores in time");
    }
    if !config.storage.deletes_enabled {
        tracing::warn!("no object is deleted, because storage.deletes_enabled is false");
    }
    app.owners().clone()
}

fn check_presets(config: &Config) -> Result<(), StartError> {
    for name in config.tenant_presets().names() {
        let policy = Policy::preset(name)?;
        if policy.scan == ScanRule::Required && !config.scanning.accept_unscanned {
            return Err(StartError::ScanRequired(policy.name));
        }
    }
    Ok(())
}

/// Logs a warning for each listener that other machines can reach without TLS.
fn warn_about_plaintext(config: &Config, is_serving_grpc: bool) {
    if is_serving_grpc && config.server.is_plaintext() {
        tracing::warn!(listen = %config.server.listen, "the gRPC port accepts connections without TLS");
    }
    if config.edge.is_plaintext() {
        tracing::warn!(listen = %config.edge.listen, "the port for probes and metrics has no TLS");
    }
}

fn observe_pool(metrics: &Metrics, database: &Database) {
    let (for_pool, tenant, system) = (database.clone(), database.clone(), database.clone());
    metrics.observe_pool("requests", move || {
        let status = for_pool.pool_status();
        PoolState { in_use: status.in_use as u64, idle: status.idle as u64, waiting: status.waiting as u64 }
    });
    metrics.observe_shares("database", move || tenant.pool_status().shares.into());
    metrics.observe_shares("system_database", move || system.system_pool_status().shares.into());
}

pub(super) fn database_options(config: &Config) -> DatabaseOptions {
    let database = &config.database;
    DatabaseOptions {
        url: database.url.clone().unwrap_or_default(),
        system_url: database.system_url.clone().unwrap_or_default(),
        pool_size_max: database.pool_size_max,
        system_pool_size_max: database.system_pool_size_max,
        statement_timeout: database.statement_timeout(),
        acquire_timeout: database.acquire_timeout(),
        prepared_statements: database.prepared_statements,
        tls_ca_file: database.tls_ca_file.clone(),
        allow_plaintext: database.allow_plaintext,
    }
}

pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        uploads: config.uploads.clone(),
        downloads: config.downloads.clone(),
        watches: config.watches.clone(),
        webhooks: config.webhooks.clone(),
        smtp: config.smtp.clone(),
        imports: config.imports.clone(),
        lists: config.lists.clone(),
        retention: config.retention.clone(),
        sweeping: config.sweeping.clone(),
        scrub: config.scrub.clone(),
        replica_provider: config.storage.replica_provider.clone(),
        worker: config.worker.clone(),
        scanning: config.scanning.clone(),
        tenants: config.tenants.clone(),
        presets: config.tenant_presets(),
        rate_limits: config.rate_limits.clone(),
        owner: config.storage.owner_limits(),
        key_prefix: config.storage.key_prefix.clone(),
    }
}
