//! What a test stands on.
//!
//! `service_test(|s| async move { … })` starts a service of its own, runs the test, stops the service, waits for what it
//! was still doing and then checks the invariants, whatever the test was about.

mod book;
mod callers;
mod clock;
mod database;
mod importer;
mod invariants;
mod logs;
mod messages;
mod old_host;
mod receiver;
mod tokens;
mod urls;
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
    app::{App, Limits, Parts},
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
        self, AdapterOptions, InitOptions, ObjectStorage, StorageOptions, Stores,
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
    database::{Owner, TestDatabase, server},
    importer::{request, results, summary},
    messages::{
        chunk, file_id, finish, pattern, resume_messages, sha256, spec, spec_message, upload_messages,
    },
    old_host::{OldAnswer, OldHost},
    receiver::Receiver,
    tokens::{Identity, Key, claims, key, publish, token},
    urls::{Direct, direct_test},
    watcher::Watcher,
};

/// Parts are small, so that files of several parts are cheap.
pub(crate) const PART: usize = 64 * 1024;

/// The organisation whose policy is `education`; all others have `general`.
pub(crate) const SCHOOL: &str = "school";

/// A running service, and everything around it that a test may touch. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) app: Arc<App>,
    pub(crate) db: Database,
    pub(crate) database: TestDatabase,
    /// The database as its superuser: sees everything, for checks and for what no RPC can do.
    pub(crate) owner: Owner,
    /// The store that new bytes go to, itself: no faults.
    pub(crate) store: Arc<dyn ObjectStorage>,
    /// The same store as the service sees it.
    pub(crate) faults: Arc<Flaky>,
    /// All stores, themselves.
    pub(crate) stores: Stores,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) channel: Channel,
    pub(crate) address: String,
    /// Where the issuer's keys are read from.
    pub(crate) keys: Arc<tempfile::NamedTempFile>,
    config: Config,
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
    /// One more server over the same database and stores, configured otherwise. The test stops it.
    pub(crate) async fn replica(&self, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = self.config.clone();
        configure(&mut config);
        let configured =
            self.stores.iter().filter(|store| config.storage.providers.contains_key(store.provider()));
        let stores = Stores::new(configured.cloned(), &config.storage.provider).unwrap();
        serve(config, self.database.clone(), self.clock.clone(), Arc::clone(&self.keys), stores).await
    }

    /// The same server, which nobody else has yet, over a connection of the runtime that this is called on: it outlives
    /// the server's own.
    pub(crate) async fn connected_from_here(mut self) -> Self {
        let channel = connect(&self.address).await;
        Arc::get_mut(&mut self.0).unwrap().channel = channel;
        self
    }
}

async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(address.to_owned()).unwrap().connect().await.unwrap()
}

impl Inner {
    /// This test provokes what operators are told about.
    pub(crate) fn expect_errors_in_the_log(&self) {
        self.may_log_errors.store(true, Ordering::Relaxed);
    }

    /// This test damages the store.
    pub(crate) fn expect_lost_objects(&self) {
        self.may_lose_objects.store(true, Ordering::Relaxed);
    }

    /// This test leaves jobs behind that failed, or that nobody does.
    pub(crate) fn expect_failed_jobs(&self) {
        self.may_fail_jobs.store(true, Ordering::Relaxed);
    }

    /// Tells the server to go, as SIGTERM does.
    pub(crate) fn begin_shutdown(&self) {
        if let Some(shutdown) = self.shutdown.lock().unwrap().take() {
            let _ = shutdown.send(());
        }
    }

    /// Waits for the server to have ended, and for what must not be cut off.
    pub(crate) async fn stopped(&self) {
        self.begin_shutdown();
        if let Some(server) = self.server.lock().await.take() {
            server.await.unwrap();
        }
        self.app.drain().await;
    }

    /// Asks until the answer is yes. Every question is a round trip, so this yields; it gives up after a while, which is long:
    /// an event is told when everything that was written before has ended, in all databases of a busy server.
    pub(crate) async fn until<F, Fut>(&self, what: &str, is_so: F)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = bool>,
    {
        let asked = async {
            while !is_so().await {
                self.owner.ping().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), asked)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// What a counter of `/metrics` says, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let values =
            text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<f64>().unwrap() as u64).sum()
    }
}

/// Runs a test against a service with the defaults.
pub(crate) fn service_test<F, Fut>(test: F)
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = ()>,
{
    service_test_with(|_| {}, test);
}

/// Runs a test against a service that is configured otherwise.
pub(crate) fn service_test_with<F, Fut>(configure: impl FnOnce(&mut Config), test: F)
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = ()>,
{
    service_test_in(None, |site| configure(&mut site.config), test);
}

/// What a service is started from, for tests that put something between it and its surroundings.
pub(crate) struct Site {
    pub(crate) config: Config,
    /// The memory of the process, tried once, unless a test changes it.
    pub(crate) storage: StorageOptions,
    /// Where the service's two pools reach the database, if not at the server's own socket: the one for requests, and
    /// the one for work across tenants.
    pub(crate) database_doors: Option<[SocketAddr; 2]>,
    /// Whether the stores give URLs.
    pub(crate) has_urls: bool,
}

/// Runs a test against a service in other surroundings, such as another database server.
pub(crate) fn service_test_in<F, Fut>(server: Option<Url>, arrange: impl FnOnce(&mut Site), test: F)
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = ()>,
{
    let logs = logs::Recorded::default();
    let for_threads = logs.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || for_threads.record_this_thread())
        .build()
        .unwrap();
    logs.record_this_thread();
    runtime.block_on(async {
        let service = start(server, arrange).await;
        test(service.clone()).await;
        service.stopped().await;
        invariants::check(&service).await;
        if !service.may_log_errors.load(Ordering::Relaxed) {
            assert_eq!(logs.errors(), [""; 0], "errors in the log that the test did not announce");
        }
        service.database.remove().await;
    });
}

async fn start(server: Option<Url>, arrange: impl FnOnce(&mut Site)) -> Service {
    let mut database = TestDatabase::create(server).await;
    let clock = Arc::new(TestClock::default());
    let keys = Arc::new(tokens::keys_file());
    let config = configuration(&keys);
    let mut site = Site { storage: storage_options(&config), config, database_doors: None, has_urls: false };
    arrange(&mut site);
    let Site { config, storage, database_doors, has_urls } = site;
    database.doors = database_doors;
    let names = config.storage.providers.keys();
    let opened = names.map(|name| open_store(name, &storage, &clock));
    let opened: Vec<Arc<dyn ObjectStorage>> = match has_urls {
        true => opened.map(|store| Arc::new(urls::WithUrls(store)) as _).collect(),
        false => opened.collect(),
    };
    for store in &opened {
        store.initialise(&InitOptions { abort_incomplete_after_days: None }).await.unwrap();
    }
    let stores = Stores::new(opened, &config.storage.provider).unwrap();
    serve(config, database, clock, keys, stores).await
}

/// A server, the only one or one more, over a database and stores.
async fn serve(
    config: Config,
    database: TestDatabase,
    clock: Arc<TestClock>,
    keys: Arc<tempfile::NamedTempFile>,
    stores: Stores,
) -> Service {
    let db = Database::open(&database_options(&config, &database)).unwrap().with_clock(clock.clone());
    db.check_roles().await.unwrap();
    let store = Arc::clone(stores.primary());
    let faults = Flaky::new(Arc::clone(&store), Plan::new());
    let others = stores.iter().filter(|other| other.provider() != store.provider()).cloned();
    let faulty = others.chain([Arc::clone(&faults) as _]);
    let metrics = Metrics::for_tests().unwrap();
    let ids: Arc<dyn IdSource> = Arc::new(SystemIds);
    let parts = Parts {
        db: db.clone(),
        stores: Stores::new(faulty, store.provider()).unwrap(),
        import_buckets: open_import_buckets(&config.imports, &config.storage, &ids).unwrap(),
        clock: clock.clone(),
        ids,
        page_tokens: Sealer::new(&[7; 32]).unwrap(),
        metrics: metrics.clone(),
    };
    let app = App::new(parts, limits(&config)).unwrap();
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
        owner: database.owner().await,
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
        may_log_errors: AtomicBool::new(false),
        may_lose_objects: AtomicBool::new(false),
        may_fail_jobs: AtomicBool::new(false),
        shutdown: std::sync::Mutex::new(Some(shutdown)),
        server: tokio::sync::Mutex::new(Some(server)),
    }))
}

fn configuration(keys: &tempfile::NamedTempFile) -> Config {
    let mut config = Config::defaults().unwrap();
    config.uploads.part_size_bytes = PART;
    config.uploads.byte_budget_bytes = 4 * 1024 * 1024;
    config.uploads.reservation_step_bytes = 4 * PART as u64;
    config.server.drain_seconds = 20;
    // No test is about these limits unless it sets them; a busy machine must not run into them.
    (config.database.acquire_timeout_seconds, config.database.statement_timeout_seconds) = (60, 60);
    (config.deadlines.unary_seconds, config.deadlines.list_seconds) = (120, 120);
    config.tenants.presets.insert(SCHOOL.to_owned(), "education".to_owned());
    config.scanning.accept_unscanned = true;
    // Something to import from, for tests that are about who may.
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let legacy =
        ImportSourceConfig { tenants: "*".to_owned(), location: SourceLocation::Directory(here.into()) };
    config.imports.sources.insert("legacy".to_owned(), legacy);
    config.storage.providers.clear();
    config.storage.set_primary_provider("memory", ProviderConfig::Memory);
    tokens::trust(&mut config, keys);
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
        tls_ca_file: None,
    }
}

/// The memory of the process, tried once.
fn storage_options(config: &Config) -> StorageOptions {
    StorageOptions {
        provider: config.storage.provider.clone(),
        adapter: AdapterOptions::Memory,
        concurrency_max: config.storage.concurrency_max,
        retry_attempts_max: 1,
        retry_backoff_base: Duration::from_millis(1),
        retry_backoff_max: Duration::from_millis(1),
    }
}

/// Every provider of a test is of the same kind.
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
        imports: config.imports.clone(),
        lists: config.lists.clone(),
        retention: config.retention.clone(),
        sweeping: config.sweeping.clone(),
        worker: config.worker.clone(),
        scanning: config.scanning.clone(),
        tenants: config.tenants.clone(),
        key_prefix: "live".to_owned(),
    }
}
