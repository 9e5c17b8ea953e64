//! Small files: several clients, each uploading its next file as soon as the previous one is durable.

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
    client::{self, Content, Files, Token},
    environment::Store,
    fixture::{Fixture, request_id},
    meter::{Latency, Meter, Sample},
    row::Tenants,
};

/// The maximum number of connections. Clients share connections, as the replicas of a backend do.
pub(crate) const CONNECTIONS_MAX: usize = 8;
/// Time to establish connections, pools and prepared statements.
const WARM_UP: Duration = Duration::from_millis(500);

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

struct UploadLoop {
    files: Files,
    tokens: Arc<[Token]>,
    turn: usize,
    content: Content,
    phase: Arc<Phase>,
}

impl UploadLoop {
    /// Uploads files and returns the latency of each file that was completed during the measurement.
    async fn run(mut self) -> Outcome<Vec<Duration>> {
        let mut latencies = Vec::new();
        while !self.phase.is(Phase::DONE) {
            let token = &self.tokens[self.turn % self.tokens.len()];
            let start = Instant::now();
            client::upload(&mut self.files, token, &self.content, request_id()).await?;
            if self.phase.is(Phase::MEASURING) {
                latencies.push(start.elapsed());
            }
            // Coprime to the number of tenants, so that each client uses all of them.
            self.turn += 13;
        }
        Ok(latencies)
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) async fn measure_uploads(
    fixture: &mut Fixture,
    store: Store,
    clients: usize,
    tenants: Tenants,
) -> Outcome<Sample> {
    let mut connections = Vec::new();
    for _ in 0..clients.min(CONNECTIONS_MAX) {
        connections.push(fixture.connect(store).await?);
    }
    let (phase, tokens): (Arc<Phase>, Arc<[Token]>) = (Arc::default(), fixture.tokens(tenants).into());
    let mut upload_loops = JoinSet::new();
    for turn in 0..clients {
        let upload_loop = UploadLoop {
            files: connections[turn % connections.len()].clone(),
            tokens: Arc::clone(&tokens),
            turn,
            content: fixture.small.clone(),
            phase: Arc::clone(&phase),
        };
        upload_loops.spawn(upload_loop.run());
    }
    tokio::time::sleep(WARM_UP).await;
    let meter = Meter::start(
        &fixture.environment,
        Some(fixture.environment.instance(store).service.pid()),
        fixture.environment.store_pid(store),
    );
    phase.enter(Phase::MEASURING);
    tokio::time::sleep(fixture.window).await;
    phase.enter(Phase::DONE);
    let usage = meter.measure_usage(&fixture.environment);
    let mut latencies = Vec::new();
    while let Some(result) = upload_loops.join_next().await {
        latencies.extend(result??);
    }
    let files = latencies.len() as f64;
    let mut sample = usage.sample(files, files / 1000.0);
    sample.latency = Latency::from_durations(latencies);
    Ok(sample)
}
