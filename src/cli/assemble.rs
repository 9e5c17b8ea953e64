//! Wires the parts together: the only place that knows all of them.

use std::{sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tokio::{net::TcpListener, sync::watch, time::timeout};

use super::{
    ambient,
    providers::{OpenError, open_stores_with},
};
use crate::{
    app::{App, Limits, Parts},
    config::Config,
    crypto::sealer::Sealer,
    db::{Database, DatabaseOptions, DbError, RoleError, blobs},
    domain::{
        digest::Digest,
        policy::{Policy, ScanRule, UnknownPreset},
    },
    edge::{self, EdgeState},
    grpc::{
        GrpcServer,
        auth::{Authenticator, DevIssuer},
    },
    storage::{Stores, Traced},
    telemetry::{Health, Metrics, health::Component, metrics::PoolState},
    worker,
};

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant wraps what its name says")]
pub enum StartError {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error(transparent)]
    Storage(#[from] OpenError),
    #[error("tenants.preset: {0}")]
    Preset(#[from] UnknownPreset),
    #[error("read the keys of auth.issuers: {0}")]
    Auth(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "refusing to start: the preset `{0}` demands a scan and this server has no scanner; \
         set scanning.accept_unscanned = true to accept files that nothing scanned"
    )]
    ScanRequired(String),
    #[error("secrets.page_token_key must be 32 bytes in base64")]
    PageTokenKey,
    #[error("listen: {0}")]
    Listen(#[from] std::io::Error),
    #[error("serve: {0}")]
    Serve(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A service that is ready to run.
pub struct Service {
    app: Arc<App>,
    stores: Stores,
    database: Database,
    authenticator: Authenticator,
    health: Health,
    metrics: Metrics,
    config: Config,
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
    let page_token_key = config.secrets.page_token_key().ok_or(StartError::PageTokenKey)?;
    let page_tokens = Sealer::new(page_token_key.expose_secret()).map_err(|_| StartError::PageTokenKey)?;
    let mut authenticator = Authenticator::open(&config.auth, Arc::clone(&clock))
        .await
        .map_err(|error| StartError::Auth(error.into()))?;
    if let Some(issuer) = dev_issuer {
        authenticator = authenticator.with_dev_secret(issuer);
    }
    let parts = Parts {
        db: database.clone(),
        stores: stores.clone(),
        clock,
        ids,
        page_tokens,
        metrics: metrics.clone(),
    };
    let app = App::new(parts, limits(&config))?;
    tracing::info!(bound = %config.memory_bound(), "memory bound");
    Ok(Service { app, stores, database, authenticator, health: Health::new(), metrics, config })
}

/// The use cases without a door, for commands that look after database and stores.
pub(super) fn upkeep(config: &Config, metrics: Metrics) -> Result<Arc<App>, StartError> {
    let (clock, ids) = ambient();
    let traced = |store| Traced::over(store, metrics.clone());
    let stores = open_stores_with(&config.storage, &clock, &ids, traced)?;
    // Nobody asks for a page here, so no token outlives this process.
    let page_token_key = Digest::of(ids.uuid().as_bytes());
    let parts = Parts {
        db: Database::open(&database_options(config))?,
        stores,
        clock,
        ids,
        page_tokens: Sealer::new(page_token_key.as_bytes()).map_err(|_| StartError::PageTokenKey)?,
        metrics,
    };
    Ok(App::new(parts, limits(config))?)
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
        let probes = tokio::spawn(probe(
            self.database.clone(),
            self.stores.clone(),
            self.health.clone(),
            self.metrics.clone(),
            stopped(),
        ));
        let unknown = tokio::spawn(look_for_unknown_providers(self.database.clone(), self.stores.clone()));
        let work = tokio::spawn(worker::run(Arc::clone(&self.app), stopped()));
        let edge_state = EdgeState { health: self.health.clone(), metrics: self.metrics.clone() };
        let edge_config = self.config.edge.clone();
        let (edge_stop, edge_stopping) = tokio::sync::oneshot::channel::<()>();
        let edge_server = tokio::spawn(async move {
            edge::serve(edge, &edge_config, edge_state, async {
                let _ = edge_stopping.await;
            })
            .await
        });
        let (health, stop_on_signal) = (self.health.clone(), Arc::clone(&stop));
        let signal = tokio::spawn(async move {
            shutdown.await;
            tracing::info!("draining");
            health.drain();
            stop_on_signal.send_replace(true);
        });
        let server = GrpcServer {
            app: Arc::clone(&self.app),
            authenticator: Arc::new(self.authenticator),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
        };
        let served = server.serve(&self.config, grpc, stopped()).await;
        // A server that failed ends everything else too.
        stop.send_replace(true);
        signal.abort();
        if timeout(self.config.server.drain(), self.app.drain()).await.is_err() {
            tracing::warn!("commits or clean-up were still under way at the end of the drain");
        }
        // Probes answer until the last request is done. Background work goes on with the next start.
        let _ = edge_stop.send(());
        probes.abort();
        unknown.abort();
        work.abort();
        edge_server.await.map_err(|error| StartError::Serve(error.into()))??;
        served.map_err(|error| StartError::Serve(error.into()))
    }
}

/// Looks at database and store every few seconds, for `/readyz` and the gRPC health service.
async fn probe(
    database: Database,
    stores: Stores,
    health: Health,
    metrics: Metrics,
    stopped: impl Future<Output = ()>,
) {
    const EVERY: Duration = Duration::from_secs(5);
    tokio::pin!(stopped);
    loop {
        match timeout(EVERY, database.ping()).await {
            Ok(Ok(())) => health.set_up(Component::Database),
            silent => {
                tracing::warn!(answer = ?silent, "database is not ready");
                health.set_down(Component::Database, "the database does not answer");
            }
        }
        // Without the store that new bytes go to there is nothing to do here; without another one, its files rest.
        if probe_stores(&stores, &metrics, EVERY).await {
            health.set_up(Component::Storage);
        } else {
            health.set_down(Component::Storage, "the object store does not answer");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = &mut stopped => return,
        }
    }
}

/// Looks at every store; answers whether the one that new bytes go to can be used.
async fn probe_stores(stores: &Stores, metrics: &Metrics, patience: Duration) -> bool {
    let checks =
        stores.iter().map(|store| async move { (store.provider(), timeout(patience, store.check()).await) });
    let mut is_ready = false;
    for (provider, answer) in futures::future::join_all(checks).await {
        let is_up = matches!(answer, Ok(Ok(())));
        metrics.storage_up(provider, is_up);
        if !is_up {
            tracing::warn!(provider, ?answer, "storage is not ready");
        }
        is_ready |= is_up && provider == stores.writing().provider();
    }
    is_ready
}

/// Files of a provider that is not configured cannot be read; operators hear of it before their users do. The service
/// starts all the same: the files of the others are as good as ever.
async fn look_for_unknown_providers(database: Database, stores: Stores) {
    match providers_in_use(&database).await {
        Ok(used) => {
            for provider in used.iter().filter(|provider| stores.of(provider).is_err()) {
                tracing::error!(
                    provider,
                    "files are stored with a provider that is not configured; add storage.providers"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "look for providers that are not configured"),
    }
}

async fn providers_in_use(database: &Database) -> Result<Vec<String>, DbError> {
    let mut tx = database.system_tx().await?;
    let used = blobs::providers(&mut tx).await?;
    tx.commit().await?;
    Ok(used)
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
        lists: config.lists.clone(),
        retention: config.retention.clone(),
        sweeping: config.sweeping.clone(),
        scanning: config.scanning.clone(),
        tenants: config.tenants.clone(),
        key_prefix: config.storage.key_prefix.clone(),
    }
}
