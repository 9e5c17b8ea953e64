//! Wires the parts together: the only place that knows all of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tokio::{net::TcpListener, sync::watch, time::timeout};

use super::{
    ambient,
    providers::{open_import_buckets, open_stores_with},
    start_error::StartError,
    surroundings::{Observed, Surroundings},
};
use crate::{
    app::{App, Limits, Parts},
    config::Config,
    crypto::sealer::Sealer,
    db::{Database, DatabaseOptions},
    domain::{
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

/// Background work drains by itself; this is for giving back what it cut.
const WORK_END: Duration = Duration::from_secs(5);

/// A service that is ready to run.
pub struct Service {
    app: Arc<App>,
    observed: Observed,
    authenticator: Authenticator,
    config: Config,
    does_work: bool,
}

/// Opens everything and checks what can be checked before the first request. `dev_issuer` lets HS256 tokens in, which no
/// configuration can.
///
/// # Errors
/// With the key or the role that must be mended.
pub async fn assemble(
    config: Config,
    metrics: Metrics,
    dev_issuer: Option<&DevIssuer>,
) -> Result<Service, StartError> {
    check_presets(&config)?;
    let (clock, ids) = ambient();
    let database = Database::open(&database_options(&config))?;
    database.check_roles().await?;
    observe_pool(&metrics, &database);
    let traced = |store| Traced::over(store, metrics.clone());
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
    };
    let app = App::new(parts, limits(&config))?;
    tracing::info!(bound = %config.memory_bound(), "memory bound");
    let observed = Observed { database, stores, health: Health::new(), metrics };
    Ok(Service { app, observed, authenticator, config, does_work: false })
}

/// A process that only works, ready to run.
pub(super) struct Worker {
    app: Arc<App>,
    observed: Observed,
    config: Config,
}

/// Opens what background work needs, and checks what can be checked before it begins.
pub(super) async fn assemble_worker(config: Config, metrics: Metrics) -> Result<Worker, StartError> {
    let sealer = configured_sealer(&config)?;
    let (app, database, stores) = upkeep_of(&config, metrics.clone(), sealer)?;
    database.check_roles().await?;
    observe_pool(&metrics, &database);
    let observed = Observed { database, stores, health: Health::new(), metrics };
    Ok(Worker { app, observed, config })
}

impl Worker {
    /// The configuration it was assembled from.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Works until `shutdown` resolves, then drains: readiness off, jobs that run have `server.drain_seconds` to end.
    pub(super) async fn run(
        self,
        edge: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), StartError> {
        let (stop, stopping) = watch::channel(false);
        let stopped = move || {
            let mut stopping = stopping.clone();
            async move {
                // A dropped sender means the same as `true`.
                let _ = stopping.wait_for(|stop| *stop).await;
            }
        };
        let health = self.observed.health.clone();
        let surroundings = Surroundings::start(self.observed, edge, &self.config.edge, stopped());
        let told = async move {
            shutdown.await;
            tracing::info!("draining");
            health.drain();
            stop.send_replace(true);
            std::future::pending::<()>().await;
        };
        // The sender lives as long as the work does, or its end would look like a signal.
        tokio::select! {
            () = worker::run(Arc::clone(&self.app), self.config.server.drain(), stopped()) => {}
            () = told => {}
        }
        if timeout(self.config.server.drain(), self.app.drain()).await.is_err() {
            tracing::warn!("clean-up was still under way at the end of the drain");
        }
        surroundings.end().await
    }
}

/// The use cases without a door, for commands that look after database and stores.
pub(super) fn upkeep(config: &Config, metrics: Metrics) -> Result<Arc<App>, StartError> {
    // Nobody asks for a page here and nothing is sent, so what is sealed does not outlive this process.
    let (_, ids) = ambient();
    let key = Digest::of(ids.uuid().as_bytes());
    let sealer = Sealer::new(key.as_bytes()).map_err(|_| StartError::PageTokenKey)?;
    upkeep_of(config, metrics, sealer).map(|(app, _, _)| app)
}

/// What seals page tokens and the secrets of webhooks, the same in every process that serves or works.
fn configured_sealer(config: &Config) -> Result<Sealer, StartError> {
    let key = config.secrets.page_token_key().ok_or(StartError::PageTokenKey)?;
    Sealer::new(key.expose_secret()).map_err(|_| StartError::PageTokenKey)
}

fn upkeep_of(
    config: &Config,
    metrics: Metrics,
    page_tokens: Sealer,
) -> Result<(Arc<App>, Database, Stores), StartError> {
    let (clock, ids) = ambient();
    let database = Database::open(&database_options(config))?;
    let traced = |store| Traced::over(store, metrics.clone());
    let stores = open_stores_with(&config.storage, &clock, &ids, traced)?;
    let parts = Parts {
        db: database.clone(),
        stores: stores.clone(),
        // Nobody imports here.
        import_buckets: BTreeMap::new(),
        clock,
        ids,
        page_tokens,
        metrics,
    };
    Ok((App::new(parts, limits(config))?, database, stores))
}

impl Service {
    /// The configuration it was assembled from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The use cases, for whoever runs in the same process.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Makes this process do background work too.
    #[must_use]
    pub fn with_worker(self) -> Self {
        Self { does_work: true, ..self }
    }

    /// Serves until `shutdown` resolves, then drains: readiness off, work in flight ends or is cut after
    /// `server.drain_seconds`, commits that have begun are waited for.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn run(
        self,
        grpc: TcpListener,
        edge: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), StartError> {
        let (stop, stopping) = watch::channel(false);
        let stop = Arc::new(stop);
        let stopped = move || {
            let mut stopping = stopping.clone();
            async move {
                // A dropped sender means the same as `true`.
                let _ = stopping.wait_for(|stop| *stop).await;
            }
        };
        let work = self
            .does_work
            .then(|| tokio::spawn(worker::run(Arc::clone(&self.app), self.config.server.drain(), stopped())));
        let counts = tokio::spawn(worker::counts::keep(Arc::clone(&self.app), stopped()));
        let observed = self.observed.clone();
        let surroundings = Surroundings::start(observed, edge, &self.config.edge, stopped());
        let (health, stop_on_signal) = (self.observed.health.clone(), Arc::clone(&stop));
        let signal = tokio::spawn(async move {
            shutdown.await;
            tracing::info!("draining");
            health.drain();
            stop_on_signal.send_replace(true);
        });
        let server = GrpcServer {
            app: Arc::clone(&self.app),
            authenticator: Arc::new(self.authenticator),
            health: self.observed.health.clone(),
            metrics: self.observed.metrics.clone(),
        };
        let served = server.serve(&self.config, grpc, stopped()).await;
        // A server that failed ends everything else too.
        stop.send_replace(true);
        signal.abort();
        if timeout(self.config.server.drain(), self.app.drain()).await.is_err() {
            tracing::warn!("commits or clean-up were still under way at the end of the drain");
        }
        if let Some(mut work) = work {
            match timeout(self.config.server.drain() + WORK_END, &mut work).await {
                Ok(ended) => ended.map_err(|error| StartError::Work(error.into()))?,
                Err(_) => {
                    work.abort();
                    tracing::warn!("background work was still under way at the end of the drain");
                }
            }
        }
        counts.abort();
        // Probes answer until the last request is done.
        surroundings.end().await?;
        served.map_err(|error| StartError::Serve(error.into()))
    }
}

fn check_presets(config: &Config) -> Result<(), StartError> {
    let names = std::iter::once(&config.tenants.preset).chain(config.tenants.presets.values());
    for name in names {
        let policy = Policy::preset(name)?;
        if policy.scan == ScanRule::Required && !config.scanning.accept_unscanned {
            return Err(StartError::ScanRequired(policy.name));
        }
    }
    Ok(())
}

fn observe_pool(metrics: &Metrics, database: &Database) {
    let database = database.clone();
    metrics.observe_pool("requests", move || {
        let status = database.pool_status();
        PoolState { in_use: status.in_use as u64, idle: status.idle as u64, waiting: status.waiting as u64 }
    });
}

/// How to reach the database.
pub(super) fn database_options(config: &Config) -> DatabaseOptions {
    let database = &config.database;
    DatabaseOptions {
        url: database.url.clone().unwrap_or_default(),
        system_url: database.system_url.clone().unwrap_or_default(),
        pool_size_max: database.pool_size_max,
        system_pool_size_max: database.system_pool_size_max,
        statement_timeout: database.statement_timeout(),
        acquire_timeout: database.acquire_timeout(),
        tls_ca_file: database.tls_ca_file.clone(),
    }
}

/// The limits that use cases keep.
pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        uploads: config.uploads.clone(),
        downloads: config.downloads.clone(),
        watches: config.watches.clone(),
        webhooks: config.webhooks.clone(),
        imports: config.imports.clone(),
        lists: config.lists.clone(),
        retention: config.retention.clone(),
        sweeping: config.sweeping.clone(),
        worker: config.worker.clone(),
        scanning: config.scanning.clone(),
        tenants: config.tenants.clone(),
        key_prefix: config.storage.key_prefix.clone(),
    }
}
