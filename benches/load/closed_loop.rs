//! Measures clients in a closed loop: each sends its next request when the previous one has ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Outcome,
    environment::Environment,
    meter::{Latency, Meter, Sample},
};

/// The maximum number of connections. Clients share connections, as the replicas of a backend do.
pub(crate) const CONNECTIONS_MAX: usize = 8;
/// Time to establish connections, pools and prepared statements.
const WARM_UP: Duration = Duration::from_millis(500);

/// A client of the closed loop.
pub(crate) trait LoopClient: Send + 'static {
    /// Sends one request and waits for its response.
    fn send_request(&mut self) -> impl Future<Output = Outcome<()>> + Send;
}

/// The processes whose CPU time is measured.
pub(crate) struct MeasuredProcesses {
    pub(crate) service_pid: u32,
    pub(crate) store_pid: Option<u32>,
}

/// The phase of the measurement.
#[derive(Default)]
struct Phase(AtomicU8);

impl Phase {
    const MEASURING: u8 = 1;
    const DONE: u8 = 2;

    fn is(&self, phase: u8) -> bool {
        self.0.load(Ordering::Relaxed) == phase
    }

    fn enter(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }
}

/// Sends requests and returns the latency of each that was completed during the measurement.
async fn run_client(mut client: impl LoopClient, phase: Arc<Phase>) -> Outcome<Vec<Duration>> {
    let mut latencies = Vec::new();
    while !phase.is(Phase::DONE) {
        let start = Instant::now();
        client.send_request().await?;
        if phase.is(Phase::MEASURING) {
            latencies.push(start.elapsed());
        }
    }
    Ok(latencies)
}

/// Runs the clients. The rate is in requests per second, CPU time is per 1,000 requests.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) async fn measure_clients<C: LoopClient>(
    environment: &Environment,
    processes: MeasuredProcesses,
    window: Duration,
    clients: Vec<C>,
) -> Outcome<Sample> {
    let phase: Arc<Phase> = Arc::default();
    let mut loops = JoinSet::new();
    for client in clients {
        loops.spawn(run_client(client, Arc::clone(&phase)));
    }
    tokio::time::sleep(WARM_UP).await;
    let meter = Meter::start(environment, Some(processes.service_pid), processes.store_pid);
    phase.enter(Phase::MEASURING);
    tokio::time::sleep(window).await;
    phase.enter(Phase::DONE);
    let usage = meter.measure_usage(environment);
    let mut latencies = Vec::new();
    while let Some(result) = loops.join_next().await {
        latencies.extend(result??);
    }
    let count = latencies.len() as f64;
    let mut sample = usage.sample(count, count / 1000.0);
    sample.latency = Latency::from_durations(latencies);
    Ok(sample)
}
