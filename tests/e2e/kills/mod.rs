//! Kills services, workers, the database and the store with SIGKILL at random points of a mixed load, and verifies
//! that every acknowledged operation keeps its effect.
//!
//! The clients know what they changed (`ledger`), repeat a call until it has a response or abandon it, and listen to the
//! events of all files (`listeners`). At a checkpoint, nothing is in progress: every version is read back, deleted
//! files stay deleted, every event was received once and in order, and counts are compared with what they count.
//!
//! The environment sets the size of a run; see "Run with random kills" in `CONTRIBUTING.md`:
//!
//! - `STRONGROOM_KILLS`: the number of kills.
//! - `STRONGROOM_KILL_SEED`: the seed of all random choices.
//! - `STRONGROOM_KILLS_PER_CHECKPOINT`: the number of kills between two checkpoints.
//! - `STRONGROOM_KILL_REPORT`: the file for the report, as JSON.

mod caller;
mod checkpoint;
mod contents;
mod fleet;
mod journal;
mod ledger;
mod listeners;
mod load;
mod scrub;
mod uploads;

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::RwLock, task::JoinSet};

use self::{
    caller::Caller,
    contents::{PART, Random},
    fleet::{Fleet, Victim},
    journal::Journal,
    ledger::Ledger,
    listeners::Heard,
    load::{IMPORT_DIRECTORY, LoadClient},
    uploads::DIRECT_PUT_MAX,
};
use crate::{
    database::TestDatabase,
    garage::Garage,
    postgres::Postgres,
    server::{Site, WHOLE_MACHINE},
};

/// The number of kills in CI.
const KILLS: u64 = 100;
/// The number of kills with `STRONGROOM_TEST_FULL=1`.
const KILLS_FULL: u64 = 500;
const KILLS_PER_CHECKPOINT_MAX: u64 = 250;
const SEED: u64 = 1;
/// The number of concurrent clients.
const CLIENTS: usize = 8;
/// The maximum work of the clients between two kills, in bytes. See `Journal::wait_for_work`.
const WORK_PER_KILL_MAX_BYTES: u64 = 4 << 20;
/// One in this many kills follows the one before it immediately.
const DOUBLE_KILL_EVERY: usize = 8;
/// The number of kills between two lines of progress.
const KILLS_PER_LINE: u64 = 50;
/// The maximum time for a condition that every run reaches. It only ends a run that is stuck.
const STUCK_TIMEOUT: Duration = Duration::from_secs(300);

/// The parameters of a run.
struct Plan {
    kills: u64,
    kills_per_checkpoint: u64,
    seed: u64,
    report: Option<PathBuf>,
}

impl Plan {
    fn from_environment() -> Self {
        let default = if std::env::var("STRONGROOM_TEST_FULL").is_ok() { KILLS_FULL } else { KILLS };
        let kills = read_number("STRONGROOM_KILLS").unwrap_or(default);
        let kills_per_checkpoint = read_number("STRONGROOM_KILLS_PER_CHECKPOINT")
            .unwrap_or_else(|| kills.div_ceil(2).min(KILLS_PER_CHECKPOINT_MAX));
        assert!(kills > 0 && kills_per_checkpoint > 0, "a run needs a kill");
        Self {
            kills,
            kills_per_checkpoint,
            seed: read_number("STRONGROOM_KILL_SEED").unwrap_or(SEED),
            report: std::env::var_os("STRONGROOM_KILL_REPORT").map(PathBuf::from),
        }
    }
}

fn read_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; it must be a whole number")))
}

/// A run: the processes, the clients and their expectations.
struct Run {
    plan: Plan,
    site: Arc<Site>,
    postgres: Arc<Postgres>,
    fleet: Arc<Fleet>,
    ledger: Arc<Ledger>,
    journal: Arc<Journal>,
    watched: Arc<Heard>,
    delivered: Arc<Heard>,
    /// Clients hold it for reading during an operation; a checkpoint holds it for writing.
    gate: Arc<RwLock<()>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_work_survives_random_kills() {
    let _machine = WHOLE_MACHINE.lock().await;
    // Another test may have installed the provider already.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let plan = Plan::from_environment();
    eprintln!("{} kills with STRONGROOM_KILL_SEED={}", plan.kills, plan.seed);
    let mut tasks = JoinSet::new();
    let run = Run::start(plan, &mut tasks).await;
    tokio::select! {
        () = run.finish() => {}
        // The tasks run without end, so one has panicked.
        ended = tasks.join_next() => panic!("seed {}: {ended:?}", run.plan.seed),
    }
}

impl Run {
    /// Starts the processes, the listeners and the clients.
    async fn start(plan: Plan, tasks: &mut JoinSet<()>) -> Self {
        let (postgres, garage) = (Arc::new(Postgres::start().await), Garage::start().await);
        let site = Arc::new(create_site(&postgres, &garage).await);
        std::fs::create_dir(site.path(IMPORT_DIRECTORY)).unwrap();
        let (journal, ledger) = (Arc::new(Journal::new()), Arc::new(Ledger::default()));
        let fleet = Fleet::start(&site, &postgres, garage, &journal, tasks);
        let new_caller = |user: &str, stream: u64| {
            Caller::new(user, &site, &fleet, &journal, Random::new(plan.seed, stream))
        };
        let watched = listeners::start_watch(new_caller("ada", 1), tasks).await;
        let delivered = listeners::start_webhook(&mut new_caller("ada", 2), tasks).await;
        fleet.wait_until_ready().await;
        let gate = Arc::new(RwLock::new(()));
        for number in 0..CLIENTS {
            let client = LoadClient {
                number,
                caller: new_caller(&format!("user{number}"), 100 + number as u64),
                site: site.clone(),
                ledger: ledger.clone(),
                http: reqwest::Client::builder().no_proxy().build().unwrap(),
                names: 0,
            };
            tasks.spawn(client.run(gate.clone()));
        }
        Self { plan, site, postgres, fleet, ledger, journal, watched, delivered, gate }
    }

    /// Kills as often as planned, with checkpoints, and verifies the result.
    async fn finish(&self) {
        let mut random = Random::new(self.plan.seed, 0);
        for kill in 1..=self.plan.kills {
            let is_double = random.below(DOUBLE_KILL_EVERY) == 0;
            let work = random.next() % WORK_PER_KILL_MAX_BYTES;
            if !is_double {
                within("the clients make progress", self.journal.wait_for_work(work)).await;
            }
            self.fleet.kill(Victim::choose(random.next()));
            if kill.is_multiple_of(KILLS_PER_LINE) {
                self.journal.print_progress();
            }
            if kill.is_multiple_of(self.plan.kills_per_checkpoint) && kill < self.plan.kills {
                drop(self.verify().await);
            }
        }
        let _paused = self.verify().await;
        self.fleet.stop_processes().await;
        self.prepare_stopped().await;
        self.sweep_until_clean().await;
        self.run_fsck(&["--deep", "--grace-seconds", "0"]).await;
        self.journal.finish(&self.plan);
    }
}

/// Creates a site with short intervals of background work: killed workers do not delay it for long.
async fn create_site(postgres: &Postgres, garage: &Garage) -> Site {
    let database = TestDatabase::create_migrated_in(&postgres.url(), "kills").await;
    let site = Site::with_database(database);
    let imports = site.path(IMPORT_DIRECTORY).display().to_string();
    site.set_all(garage.settings())
        .set_all(scrub::settings())
        .set("STRONGROOM_UPLOADS__PART_SIZE_BYTES", PART)
        .set("STRONGROOM_UPLOADS__DIRECT_PUT_MAX_BYTES", DIRECT_PUT_MAX)
        .set("STRONGROOM_UPLOADS__LEASE_SECONDS", 3600)
        .set("STRONGROOM_RETENTION__BLOB_DELETION_DELAY_HOURS", 0)
        .set("STRONGROOM_DATABASE__POOL_SIZE_MAX", 8)
        .set("STRONGROOM_DATABASE__SYSTEM_POOL_SIZE_MAX", 6)
        .set("STRONGROOM_WORKER__LEASE_SECONDS", 3)
        .set("STRONGROOM_WORKER__HEARTBEAT_SECONDS", 1)
        .set("STRONGROOM_WORKER__TICK_SECONDS", 1)
        .set("STRONGROOM_WORKER__POLL_MAX_MILLISECONDS", 200)
        .set("STRONGROOM_WORKER__BACKOFF_BASE_SECONDS", 1)
        .set("STRONGROOM_WORKER__BACKOFF_MAX_SECONDS", 1)
        .set("STRONGROOM_WORKER__DEPENDENCY_BACKOFF_MAX_SECONDS", 1)
        // A job can be killed more often than it fails in production.
        .set("STRONGROOM_WORKER__ATTEMPTS_MAX", 100)
        .set("STRONGROOM_WORKER__BREAKER_BACKOFF_BASE_SECONDS", 1)
        .set("STRONGROOM_WORKER__BREAKER_BACKOFF_MAX_SECONDS", 1)
        .set("STRONGROOM_WATCHES__HEARTBEAT_SECONDS", 1)
        .set("STRONGROOM_WEBHOOKS__ALLOW_PRIVATE_ADDRESSES", true)
        .set("STRONGROOM_WEBHOOKS__TIMEOUT_SECONDS", 5)
        .set("STRONGROOM_WEBHOOKS__BACKOFF_SECONDS", 1)
        .set("STRONGROOM_WEBHOOKS__BACKOFF_MAX_SECONDS", 1)
        .set("STRONGROOM_WEBHOOKS__ATTEMPTS_MAX", 100)
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__ADAPTER", "directory")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__TENANTS", "*")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__PATH", imports)
}

/// Waits for a condition. Panics if it is not reached.
async fn within<T>(what: &str, condition: impl Future<Output = T>) -> T {
    let reached = tokio::time::timeout(STUCK_TIMEOUT, condition).await;
    reached.unwrap_or_else(|_| panic!("timed out waiting until {what}"))
}
