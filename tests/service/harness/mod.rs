//! The test harness.
//!
//! `service_test(|s| async move { … })` starts a service with its own database and store, runs the test,
//! stops the service, waits for its background work, and then checks the invariants, whatever the test is
//! about.

mod callers;
mod clock;
mod database;
mod former_cursor;
mod importer;
mod invariants;
mod legacy_host;
mod logs;
mod messages;
mod quota_row;
mod receiver;
mod smtp;
mod tokens;
mod urls;
mod waits;
mod watcher;

use std::{
    future::Future,
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use strongroom::{
    app::{App, Limits, Parts, rates::open_shared_rates},
    cli::open_import_buckets,
    config::{
        Config,
        import_source::{ImportSourceConfig, SourceLocation},
        provider::ProviderConfig,
    },
    crypto::sealer::Sealer,
    db::{Database, DatabaseOptions},
    domain::clock::{IdSource, SystemIds},
    grpc::{GrpcServer, auth::Authenticator},
    storage::{
        self, AdapterOptions, InitOptions, ObjectStorage, StorageOptions, StoreLimits, Stores,
        flaky::{Flaky, Plan},
    },
    telemetry::{Health, Metrics},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::transport::{Channel, Endpoint};
use url::Url;

pub(crate) use self::{
    callers::{Caller, reason, violated_fields},
    clock::TestClock,
    database::{Superuser, TestDatabase, test_server_url},
    importer::{import_request, import_results, import_summary},
    legacy_host::{LegacyHost, LegacyResponse},
    logs::take_statements,
    messages::{
        chunk, file_id, finish, pattern, resume_messages, sha256, spec, spec_message, upload_messages,
    },
    receiver::Receiver,
    smtp::SmtpServer,
    tokens::{Identity, Key, claims, default_key, publish_keys, token},
    urls::{DirectUpload, direct_test},
    waits::WAIT_MAX,
    watcher::Watcher,
};

/// The size of a part in bytes. It is small, so that files of several parts are cheap.
pub(crate) const PART: usize = 64 * 1024;

/// The organization with the preset `education`; all others have `general`.
pub(crate) const SCHOOL: &str = "school";

/// A running service with its database, stores and clock. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) app: Arc<App>,
    pub(crate) db: Database,
    pub(crate) database: TestDatabase,
    /// Reads and writes all rows, for checks and for changes that no RPC makes.
    pub(crate) superuser: Superuser,
    /// The primary store, without faults.
    pub(crate) store: Arc<dyn ObjectStorage>,
    /// The primary store as the service uses it, with injected faults.
    pub(crate) faults: Arc<Flaky>,
    /// All stores, without faults.
    pub(crate) stores: Stores,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) channel: Channel,
    pub(crate) address: String,
    /// The file of the issuer's public keys.
    pub(crate) keys: Arc<tempfile::NamedTempFile>,
    config: Config,
    errors: std::sync::OnceLock<logs::ErrorLog>,
    may_log_errors: AtomicBool,
    may_lose_objects: AtomicBool,
    may_fail_jobs: AtomicBool,
    shutdown: std::sync::Mutex<Option<oneshot::Sender<()>>>,
    server: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Deref for Service {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Service {
    /// Starts another server over the same database and stores with a changed configuration. The test must
    /// stop it.
    pub(crate) async fn start_replica(&self, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = self.config.clone();
        configure(&mut config);
        let configured =
            self.stores.iter().filter(|store| config.storage.providers.contains_key(store.provider()));
        let stores = Stores::new(configured.cloned(), &config.storage.provider, UNLIMITED).unwrap();
        start_server(config, self.database.clone(), self.clock.clone(), Arc::clone(&self.keys), stores).await
    }

    /// Starts a server over a copy of the database, made with `pg_dump`, and the same stores. The test must
    /// stop it and drop its database.
    pub(crate) async fn start_copy(&self) -> Self {
        let (config, database) = (self.config.clone(), self.database.dump_and_restore().await);
        start_server(config, database, self.clock.clone(), Arc::clone(&self.keys), self.stores.clone()).await
    }

    /// Starts a server over a copy of the database on another database server, and the same stores. The test must
    /// stop it.
    pub(crate) async fn start_copy_on(&self, server: Url) -> Self {
        let (config, database) = (self.config.clone(), self.database.dump_and_restore_on(server).await);
        start_server(config, database, self.clock.clone(), Arc::clone(&self.keys), self.stores.clone()).await
    }

    /// Replaces the connection with one on the calling runtime, which outlives the server's runtime. Panics if
    /// the service was already cloned.
    pub(crate) async fn reconnect_on_this_runtime(mut self) -> Self {
        let channel = connect(&self.address).await;
        Arc::get_mut(&mut self.0).unwrap().channel = channel;
        self
    }
}

async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(address.to_owned()).unwrap().connect().await.unwrap()
}

impl Inner {
    /// Permits logged errors in this test.
    pub(crate) fn allow_logged_errors(&self) {
        self.may_log_errors.store(true, Ordering::Relaxed);
    }

    /// Returns the errors that were logged so far.
    pub(crate) fn logged_errors(&self) -> Vec<String> {
        self.errors.get().map(logs::ErrorLog::errors).unwrap_or_default()
    }

    /// Permits fsck violations in this test, which damages the store.
    pub(crate) fn allow_lost_objects(&self) {
        self.may_lose_objects.store(true, Ordering::Relaxed);
    }

    /// Permits failed and unfinished jobs in this test.
    pub(crate) fn allow_failed_jobs(&self) {
        self.may_fail_jobs.store(true, Ordering::Relaxed);
    }

    /// Starts the shutdown of the server, as SIGTERM does.
    pub(crate) fn begin_shutdown(&self) {
        if let Some(shutdown) = self.shutdown.lock().unwrap().take() {
            let _ = shutdown.send(());
        }
    }

    /// Shuts the server down and waits for its background work.
    pub(crate) async fn stop(&self) {
        self.begin_shutdown();
        if let Some(server) = self.server.lock().await.take() {
            server.await.unwrap();
        }
        self.app.drain().await;
    }

    /// Returns the value of a counter of `/metrics`, summed over its labels.
    pub(crate) fn read_metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let values =
            text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<f64>().unwrap() as u64).sum()
    }
}

/// Runs a test against a service with the default test configuration.
pub(crate) fn service_test<F, Fut>(test: F)
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = ()>,
{
    service_test_with(|_| {}, test);
}

/// Runs a test against a service with a changed configuration.
pub(crate) fn service_test_with<F, Fut>(configure: impl FnOnce(&mut Config), test: F)
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = ()>,
{
    service_test_in(None, |setup| configure(&mut setup.config), test);
}

/// The inputs from which a service is started, for tests that use a proxy or another store.
pub(crate) struct Setup {
    pub(crate) config: Config,
    /// In memory and without retries, unless a test changes it.
    pub(crate) storage: StorageOptions,
    /// The addresses that the two pools of the service connect to, if they differ from the server's: first the
    /// pool for requests, then the pool for work across tenants.
    pub(crate) database_addresses: Option<[SocketAddr; 2]>,
    /// Whether the stores presign URLs.
    pub(crate) has_urls: bool,
}

/// Runs a test against a service with a changed setup, or with its own database server.
pub(crate) fn service_test_in<F, Fut>(server: Option<Url>, arrange: impl FnOnce(&mut Setup), test: F)
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = ()>,
{
    let logs = logs::ErrorLog::default();
    let for_threads = logs.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || for_threads.record_this_thread())
        .build()
        .unwrap();
    logs.record_this_thread();
    runtime.block_on(async {
        let service = start_service(server, arrange).await;
        let _ = service.errors.set(logs.clone());
        test(service.clone()).await;
        service.stop().await;
        invariants::check_invariants(&service).await;
        if !service.may_log_errors.load(Ordering::Relaxed) {
            assert_eq!(logs.errors(), [""; 0], "unexpected errors in the log");
        }
        service.database.drop_database().await;
    });
}

async fn start_service(server: Option<Url>, arrange: impl FnOnce(&mut Setup)) -> Service {
    let mut database = TestDatabase::create(server).await;
    let clock = Arc::new(TestClock::default());
    let keys = Arc::new(tokens::create_keys_file());
    let config = test_config(&keys);
    let mut setup =
        Setup { storage: storage_options(&config), config, database_addresses: None, has_urls: false };
    arrange(&mut setup);
    let Setup { config, storage, database_addresses, has_urls } = setup;
    database.addresses = database_addresses;
    let names = config.storage.providers.keys();
    let opened = names.map(|name| open_store(name, &storage, &clock));
    let opened: Vec<Arc<dyn ObjectStorage>> = match has_urls {
        true => opened.map(|store| Arc::new(urls::WithUrls(store)) as _).collect(),
        false => opened.collect(),
    };
    for store in &opened {
        store.initialize(&InitOptions { abort_incomplete_after_days: None }).await.unwrap();
    }
    let stores = Stores::new(opened, &config.storage.provider, UNLIMITED).unwrap();
    start_server(config, database, clock, keys, stores).await
}

/// Starts a server over a database and stores. A test may have several.
async fn start_server(
    config: Config,
    database: TestDatabase,
    clock: Arc<TestClock>,
    keys: Arc<tempfile::NamedTempFile>,
    stores: Stores,
) -> Service {
    let db = Database::open(&database_options(&config, &database)).unwrap().with_clock(clock.clone());
    db.check_roles().await.unwrap();
    db.check_schema().await.unwrap();
    let store = Arc::clone(stores.primary());
    let faults = Flaky::new(Arc::clone(&store), Plan::new());
    let others = stores.iter().filter(|other| other.provider() != store.provider()).cloned();
    let faulty = others.chain([Arc::clone(&faults) as _]);
    let metrics = Metrics::for_tests().unwrap();
    let ids: Arc<dyn IdSource> = Arc::new(SystemIds);
    let parts = Parts {
        db: db.clone(),
        stores: Stores::new(faulty, store.provider(), store_limits(&config)).unwrap(),
        import_buckets: open_import_buckets(&config.imports, &config.storage, &ids).unwrap(),
        clock: clock.clone(),
        ids,
        page_tokens: Sealer::new(&[7; 32]).unwrap(),
        metrics: metrics.clone(),
        shared_rates: open_shared_rates(&config.limits, &metrics).unwrap(),
    };
    let app = App::new(parts, limits(&config)).unwrap();
    app.owners().check_stores().await;
    // Tests count the calls from here on.
    faults.set_plan(Plan::new());
    let authenticator = Arc::new(Authenticator::open(&config.auth, clock.clone()).await.unwrap());
    let health = Health::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (shutdown, stopping) = oneshot::channel::<()>();
    let server =
        GrpcServer { app: Arc::clone(&app), authenticator, health: health.clone(), metrics: metrics.clone() };
    let for_replicas = config.clone();
    let server = tokio::spawn(async move {
        let stopped = async {
            let _ = stopping.await;
        };
        server.serve(&config, listener, stopped).await.unwrap();
    });
    Service(Arc::new(Inner {
        superuser: database.connect_as_superuser().await,
        database,
        channel: connect(&address).await,
        app,
        db,
        store,
        faults,
        stores,
        config: for_replicas,
        clock,
        health,
        metrics,
        address,
        keys,
        errors: std::sync::OnceLock::new(),
        may_log_errors: AtomicBool::new(false),
        may_lose_objects: AtomicBool::new(false),
        may_fail_jobs: AtomicBool::new(false),
        shutdown: std::sync::Mutex::new(Some(shutdown)),
        server: tokio::sync::Mutex::new(Some(server)),
    }))
}

fn test_config(keys: &tempfile::NamedTempFile) -> Config {
    let mut config = Config::defaults().unwrap();
    config.uploads.part_size_bytes = PART;
    config.uploads.byte_budget_bytes = 4 * 1024 * 1024;
    config.uploads.reservation_step_bytes = 4 * PART as u64;
    config.server.drain_seconds = 20;
    // Checks in the middle of a test would add statements and calls of the store.
    config.storage.owner_check_seconds = 300;
    // These limits must not be reached on a busy machine; a test of a limit sets its own value.
    (config.database.acquire_timeout_seconds, config.database.statement_timeout_seconds) = (60, 60);
    (config.deadlines.unary_seconds, config.deadlines.list_seconds) = (120, 120);
    config.uploads.first_message_seconds = 120;
    // Tests inject many failures of the store in a row; a test of the circuit breaker sets its own value.
    config.worker.breaker_failures_max = 1_000;
    // Tests are refused often and fast.
    config.rate_limits.caller_refusals_per_second = 0;
    config.rate_limits.tenant_refusals_per_second = 0;
    config.rate_limits.address_refusals_per_second = 0;
    config.scanning.accept_unscanned = true;
    // An existing source, for permission tests.
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let legacy =
        ImportSourceConfig { tenants: "*".to_owned(), location: SourceLocation::Directory(here.into()) };
    config.imports.sources.insert("legacy".to_owned(), legacy);
    config.storage.providers.clear();
    config.storage.set_primary_provider("memory", ProviderConfig::Memory);
    tokens::trust_issuer(&mut config, keys);
    config
}

pub(crate) fn database_options(config: &Config, database: &TestDatabase) -> DatabaseOptions {
    DatabaseOptions {
        url: database.app_url(),
        system_url: database.system_url(),
        pool_size_max: config.database.pool_size_max,
        system_pool_size_max: config.database.system_pool_size_max,
        statement_timeout: config.database.statement_timeout(),
        acquire_timeout: config.database.acquire_timeout(),
        prepared_statements: config.database.prepared_statements,
        tls_ca_file: None,
        allow_plaintext: false,
    }
}

/// The limits of stores that tests use beside the service, whose own stores have the configured limits.
pub(crate) const UNLIMITED: StoreLimits = StoreLimits { operations_max: 65_536, downloads_max: 65_536 };

fn store_limits(config: &Config) -> StoreLimits {
    StoreLimits {
        operations_max: config.storage.concurrency_max,
        downloads_max: config.storage.downloads_max,
    }
}

/// Stores in memory, without retries.
fn storage_options(config: &Config) -> StorageOptions {
    StorageOptions {
        provider: config.storage.provider.clone(),
        adapter: AdapterOptions::Memory,
        retry_attempts_max: 1,
        retry_backoff_base: Duration::from_millis(1),
        retry_backoff_max: Duration::from_millis(1),
    }
}

/// Opens a store. All providers of a test use the same adapter.
fn open_store(provider: &str, options: &StorageOptions, clock: &Arc<TestClock>) -> Arc<dyn ObjectStorage> {
    let options = StorageOptions { provider: provider.to_owned(), ..options.clone() };
    storage::open(&options, clock.clone(), Arc::new(SystemIds)).unwrap()
}

fn limits(config: &Config) -> Limits {
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
        key_prefix: "live".to_owned(),
    }
}
