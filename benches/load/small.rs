//! Small files: so many clients, each with its next file as soon as the one before is durable.

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
    lab::{Lab, request_id},
    meter::{Latency, Meter, Sample},
    row::Tenants,
    site::Store,
    wire::{self, Content, Files, Token},
};

/// Clients share connections, as the replicas of a backend do.
pub(crate) const CONNECTIONS_MAX: usize = 8;
/// Time for connections, pools and prepared statements to settle.
const WARM_UP: Duration = Duration::from_millis(500);

/// What the clients are at.
#[derive(Default)]
struct Phase(AtomicU8);

impl Phase {
    const MEASURING: u8 = 1;
    const OVER: u8 = 2;

    fn is(&self, phase: u8) -> bool {
        self.0.load(Ordering::Relaxed) == phase
    }

    fn enter(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }
}

struct Loader {
    files: Files,
    tokens: Arc<[Token]>,
    turn: usize,
    content: Content,
    phase: Arc<Phase>,
}

impl Loader {
    /// How long each file took that was done while we measured.
    async fn run(mut self) -> Outcome<Vec<Duration>> {
        let mut latencies = Vec::new();
        while !self.phase.is(Phase::OVER) {
            let token = &self.tokens[self.turn % self.tokens.len()];
            let began = Instant::now();
            wire::upload(&mut self.files, token, &self.content, request_id()).await?;
            if self.phase.is(Phase::MEASURING) {
                latencies.push(began.elapsed());
            }
            // Prime to the number of tenants, so that each client meets them all.
            self.turn += 13;
        }
        Ok(latencies)
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) async fn uploads(
    lab: &mut Lab,
    store: Store,
    clients: usize,
    tenants: Tenants,
) -> Outcome<Sample> {
    let mut connections = Vec::new();
    for _ in 0..clients.min(CONNECTIONS_MAX) {
        connections.push(lab.connect(store).await?);
    }
    let (phase, tokens): (Arc<Phase>, Arc<[Token]>) = (Arc::default(), lab.tokens(tenants).into());
    let mut loaders = JoinSet::new();
    for turn in 0..clients {
        let loader = Loader {
            files: connections[turn % connections.len()].clone(),
            tokens: Arc::clone(&tokens),
            turn,
            content: lab.small.clone(),
            phase: Arc::clone(&phase),
        };
        loaders.spawn(loader.run());
    }
    tokio::time::sleep(WARM_UP).await;
    let meter = Meter::start(&lab.site, Some(lab.site.at(store).service.pid()), lab.site.store_pid(store));
    phase.enter(Phase::MEASURING);
    tokio::time::sleep(lab.window).await;
    phase.enter(Phase::OVER);
    let counted = meter.pause(&lab.site);
    let mut latencies = Vec::new();
    while let Some(ended) = loaders.join_next().await {
        latencies.extend(ended??);
    }
    let files = latencies.len() as f64;
    let mut sample = counted.sample(files, files / 1000.0);
    sample.latency = Latency::of(latencies);
    Ok(sample)
}
