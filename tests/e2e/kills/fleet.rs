//! The processes under test, each with a task that kills it when ordered and starts it again at once.

use std::{collections::BTreeMap, process::Stdio, sync::Arc};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::ChildStderr,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::{journal::Journal, within};
use crate::{garage::Garage, postgres::Postgres, server::Site};

/// The number of processes of each kind. Together with the database and the store, they are as much as two cores can
/// serve.
const SERVICES: usize = 2;
const WORKERS: usize = 2;
/// The number of lines of a log that a failure reports.
const LOG_LINES: usize = 60;
/// The number of consecutive failed starts, each with a running database and store, after which the test fails.
const FAILED_STARTS_MAX: usize = 20;

/// A process that can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Victim {
    Service(usize),
    Worker(usize),
    Database,
    Store,
}

impl Victim {
    /// Chooses a process. Services and workers restart quickly and are killed often: 45 % each. The database and the
    /// store recover after each kill, and are killed less often: 5 % each.
    pub(super) fn choose(random: u64) -> Self {
        let slot = usize::try_from(random / 100 % 2).unwrap();
        match random % 100 {
            0..45 => Self::Service(slot),
            45..90 => Self::Worker(slot),
            90..95 => Self::Database,
            _ => Self::Store,
        }
    }

    /// The name of its kind in reports.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Service(_) => "service",
            Self::Worker(_) => "worker",
            Self::Database => "database",
            Self::Store => "store",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Kill the process and start it again.
    Kill,
    /// Kill the process. It stays stopped until [`Order::Start`].
    Stop,
    Start,
}

/// The processes that are ready, and the orders that were not carried out yet.
#[derive(Debug, Clone, Default)]
struct State {
    /// The address of each ready process; empty for those without one.
    ready: BTreeMap<Victim, String>,
    pending_orders: usize,
}

impl State {
    /// Returns whether a service can answer: the database and the store are ready too.
    fn is_serving(&self) -> bool {
        self.has_dependencies() && self.ready.keys().any(|victim| matches!(victim, Victim::Service(_)))
    }

    fn has_dependencies(&self) -> bool {
        self.ready.contains_key(&Victim::Database) && self.ready.contains_key(&Victim::Store)
    }
}

/// The reason why a process ended.
enum End {
    Killed,
    Stopped,
    /// It exited before it was ready, with this log.
    NotStarted(Vec<String>),
}

/// All processes under test.
pub(super) struct Fleet {
    site: Arc<Site>,
    journal: Arc<Journal>,
    state: watch::Sender<State>,
    orders: BTreeMap<Victim, mpsc::UnboundedSender<Order>>,
}

impl Fleet {
    /// Starts the tasks that run the processes. The database and the store are running already.
    pub(super) fn start(
        site: &Arc<Site>,
        postgres: &Arc<Postgres>,
        garage: Garage,
        journal: &Arc<Journal>,
        tasks: &mut JoinSet<()>,
    ) -> Arc<Self> {
        let victims = (0..SERVICES).map(Victim::Service).chain((0..WORKERS).map(Victim::Worker));
        let (mut orders, mut queues) = (BTreeMap::new(), BTreeMap::new());
        for victim in victims.chain([Victim::Database, Victim::Store]) {
            let (sender, queue) = mpsc::unbounded_channel();
            orders.insert(victim, sender);
            queues.insert(victim, queue);
        }
        let state = watch::Sender::new(State::default());
        let fleet = Arc::new(Self { site: site.clone(), journal: journal.clone(), state, orders });
        fleet.set_ready(Victim::Database, String::new());
        fleet.set_ready(Victim::Store, String::new());
        tasks.spawn(run_database(fleet.clone(), postgres.clone(), queues.remove(&Victim::Database).unwrap()));
        tasks.spawn(run_store(fleet.clone(), garage, queues.remove(&Victim::Store).unwrap()));
        for (victim, queue) in queues {
            tasks.spawn(supervise(fleet.clone(), victim, queue));
        }
        fleet
    }

    /// Kills a process with SIGKILL, also while it starts. It is started again at once. Does not wait.
    pub(super) fn kill(&self, victim: Victim) {
        self.journal.count_kill(victim.kind());
        self.send(victim, Order::Kill);
    }

    /// Waits until a service, the database and the store are ready, and returns the address of one of the services.
    pub(super) async fn wait_for_service(&self, random: u64) -> String {
        let mut state = self.state.subscribe();
        let state = state.wait_for(State::is_serving).await.unwrap();
        let services: Vec<&String> = state
            .ready
            .iter()
            .filter(|(victim, _)| matches!(victim, Victim::Service(_)))
            .map(|(_, address)| address)
            .collect();
        services[usize::try_from(random).unwrap() % services.len()].clone()
    }

    /// Waits until every order is carried out and every process is ready.
    pub(super) async fn wait_until_ready(&self) {
        let mut state = self.state.subscribe();
        let ready =
            state.wait_for(|state| state.pending_orders == 0 && state.ready.len() == self.orders.len());
        within("all processes are ready", ready).await.unwrap();
    }

    /// Kills all services and workers. They stay stopped.
    pub(super) async fn stop_processes(&self) {
        self.send_to_processes(Order::Stop);
        let mut state = self.state.subscribe();
        let stopped = state.wait_for(|state| state.pending_orders == 0 && state.ready.len() == 2);
        within("all services and workers are stopped", stopped).await.unwrap();
    }

    /// Starts all services and workers after [`Self::stop_processes`], and waits until they are ready.
    pub(super) async fn start_processes(&self) {
        self.send_to_processes(Order::Start);
        self.wait_until_ready().await;
    }

    fn send_to_processes(&self, order: Order) {
        for victim in self.orders.keys() {
            if matches!(victim, Victim::Service(_) | Victim::Worker(_)) {
                self.send(*victim, order);
            }
        }
    }

    fn send(&self, victim: Victim, order: Order) {
        self.state.send_modify(|state| state.pending_orders += 1);
        self.orders[&victim].send(order).unwrap();
    }

    fn set_ready(&self, victim: Victim, address: String) {
        self.state.send_modify(|state| {
            state.ready.insert(victim, address);
        });
    }

    fn set_down(&self, victim: Victim) {
        self.state.send_modify(|state| {
            state.ready.remove(&victim);
        });
    }

    fn finish_order(&self) {
        self.state.send_modify(|state| state.pending_orders -= 1);
    }
}

/// Kills and restarts the database.
async fn run_database(
    fleet: Arc<Fleet>,
    postgres: Arc<Postgres>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    while orders.recv().await.is_some() {
        fleet.set_down(Victim::Database);
        postgres.kill();
        fleet.finish_order();
        postgres.restart().await;
        fleet.set_ready(Victim::Database, String::new());
    }
}

/// Kills and restarts the store.
async fn run_store(fleet: Arc<Fleet>, mut garage: Garage, mut orders: mpsc::UnboundedReceiver<Order>) {
    while orders.recv().await.is_some() {
        fleet.set_down(Victim::Store);
        garage.kill().await;
        fleet.finish_order();
        garage.restart().await;
        fleet.set_ready(Victim::Store, String::new());
    }
}

/// Runs a service or a worker, and starts it again after each end.
async fn supervise(fleet: Arc<Fleet>, victim: Victim, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut failed_starts = 0;
    loop {
        match run_process(&fleet, victim, &mut orders).await {
            End::Killed => failed_starts = 0,
            End::Stopped => loop {
                let Some(order) = orders.recv().await else { return };
                fleet.finish_order();
                if order == Order::Start {
                    break;
                }
            },
            End::NotStarted(log) => {
                failed_starts += 1;
                fleet.journal.count_failed_start();
                assert!(failed_starts < FAILED_STARTS_MAX, "{victim:?} does not start: {log:#?}");
                // It needs both, and an orchestrator would start it again until they are available.
                fleet.state.subscribe().wait_for(State::has_dependencies).await.unwrap();
            }
        }
    }
}

/// Runs a process until it is killed, or until its start fails.
async fn run_process(fleet: &Fleet, victim: Victim, orders: &mut mpsc::UnboundedReceiver<Order>) -> End {
    let subcommand = if matches!(victim, Victim::Service(_)) { "serve" } else { "worker" };
    let mut command = fleet.site.command(&[subcommand]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (ready, mut became_ready) = oneshot::channel();
    let log = tokio::spawn(read_log(child.stderr.take().unwrap(), ready, fleet.journal.clone(), victim));
    let mut is_ready = false;
    let order = loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Start) => fleet.finish_order(),
                order => {
                    child.kill().await.unwrap();
                    break order;
                }
            },
            address = &mut became_ready, if !is_ready => {
                // Without an address, its log has ended, and so has the process.
                let Ok(address) = address else {
                    child.wait().await.unwrap();
                    return End::NotStarted(log.await.unwrap());
                };
                is_ready = true;
                fleet.set_ready(victim, address);
            }
            status = child.wait(), if is_ready => {
                let log = log.await.unwrap();
                panic!("{victim:?} exited by itself with {status:?}: {log:#?}");
            }
        }
    };
    log.await.unwrap();
    fleet.set_down(victim);
    fleet.finish_order();
    if order == Some(Order::Stop) { End::Stopped } else { End::Killed }
}

/// Reads the log of a process until it ends, and returns its last lines. Sends the address of the process when it is
/// ready.
async fn read_log(
    stderr: ChildStderr,
    ready: oneshot::Sender<String>,
    journal: Arc<Journal>,
    victim: Victim,
) -> Vec<String> {
    let mut ready = Some(ready);
    let (mut lines, mut last) = (BufReader::new(stderr).lines(), Vec::new());
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(address) = parse_ready(&line)
            && let Some(ready) = ready.take()
        {
            // The process may have been killed in the meantime.
            let _ = ready.send(address);
        }
        journal.note_log_line(victim, &line);
        last.push(line);
        if last.len() > LOG_LINES {
            last.remove(0);
        }
    }
    last
}

/// Returns the address of a process whose log has this line, if the line reports that the process is ready.
fn parse_ready(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    match line.get("message")?.as_str()? {
        "listening" => Some(format!("http://{}", line.get("grpc")?.as_str()?)),
        "worker started" => Some(String::new()),
        _ => None,
    }
}
