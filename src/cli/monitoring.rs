//! Monitoring tasks of a server or worker process: probes of the database and the stores every 5 seconds, and
//! the HTTP port for probes and metrics.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

use super::start_error::StartError;
use crate::{
    app::owner::StoreOwners,
    config::EdgeConfig,
    db::{Database, DbError, DbErrorKind, blobs},
    domain::clock::SyncedClock,
    edge::{self, EdgeState},
    storage::{StorageError, StorageErrorKind, Stores},
    telemetry::{Health, Metrics, health::Component},
};

/// The database and stores to probe, and the receivers of the results.
#[derive(Clone)]
pub(super) struct MonitoredParts {
    pub(super) database: Database,
    pub(super) stores: Stores,
    pub(super) owners: StoreOwners,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) clock: Arc<SyncedClock>,
}

/// The running monitoring tasks.
pub(super) struct Monitoring {
    probes: JoinHandle<()>,
    provider_check: JoinHandle<()>,
    edge: JoinHandle<std::io::Result<()>>,
    stop_edge: oneshot::Sender<()>,
}

impl Monitoring {
    /// Starts probing, until `stopped` resolves, and serving HTTP, until [`Self::stop`] is called.
    pub(super) fn start(
        parts: MonitoredParts,
        edge: TcpListener,
        config: &EdgeConfig,
        stopped: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let state = EdgeState { health: parts.health.clone(), metrics: parts.metrics.clone() };
        let config = config.clone();
        let (stop_edge, stopping) = oneshot::channel::<()>();
        Self {
            provider_check: tokio::spawn(check_providers_in_use(
                parts.database.clone(),
                parts.stores.clone(),
            )),
            probes: tokio::spawn(run_probes(parts, stopped)),
            edge: tokio::spawn(async move {
                edge::serve(edge, &config, state, async {
                    let _ = stopping.await;
                })
                .await
            }),
            stop_edge,
        }
    }

    /// Stops all tasks, including the HTTP server.
    pub(super) async fn stop(self) -> Result<(), StartError> {
        let _ = self.stop_edge.send(());
        self.probes.abort();
        self.provider_check.abort();
        self.edge.await.map_err(|error| StartError::Serve(error.into()))??;
        Ok(())
    }
}

/// Probes the database and the stores every 5 seconds, for `/readyz` and the gRPC health service.
async fn run_probes(parts: MonitoredParts, stopped: impl Future<Output = ()>) {
    const INTERVAL: Duration = Duration::from_secs(5);
    let MonitoredParts { database, stores, owners, health, metrics, clock } = parts;
    tokio::pin!(stopped);
    let mut epoch = None;
    loop {
        let mut is_reachable = false;
        match timeout(INTERVAL, database.ping()).await {
            Ok(Ok(())) => {
                health.mark_up(Component::Database);
                is_reachable = true;
            }
            failed => {
                tracing::warn!(result = ?failed, "database probe failed");
                let is_read_only = matches!(&failed, Ok(Err(error)) if error.kind == DbErrorKind::ReadOnly);
                let reason = match is_read_only {
                    true => "the database accepts no writes",
                    false => "the database is unreachable",
                };
                health.mark_down(Component::Database, reason);
            }
        }
        // The process is not ready without the store for new objects. If another store is unreachable, only
        // its files are.
        if probe_stores(&stores, &metrics, INTERVAL).await {
            health.mark_up(Component::Storage);
        } else {
            health.mark_down(Component::Storage, "the object store is unreachable");
        }
        // Last, because readiness does not depend on it.
        if is_reachable {
            follow_clock(&clock, &database, &health, &metrics, INTERVAL).await;
            epoch = follow_epoch(epoch, &database, INTERVAL).await;
        }
        check_owners(&owners, &health, INTERVAL).await;
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stopped => return,
        }
    }
}

/// Begins a new epoch of positions if the database was restored or failed over. Returns the current epoch, or the known
/// one if it cannot be read.
async fn follow_epoch(known: Option<i32>, database: &Database, time_limit: Duration) -> Option<i32> {
    match timeout(time_limit, database.begin_position_epoch()).await {
        Ok(Ok(epoch)) => {
            if let Some(former) = known.filter(|known| *known != epoch) {
                tracing::info!(
                    epoch,
                    former,
                    "event positions have a new epoch, because the database was restored or failed over"
                );
            }
            Some(epoch)
        }
        failed => {
            tracing::warn!(result = ?failed, "failed to read the epoch of event positions");
            known
        }
    }
}

/// Checks the owners of the stores, and reports the result. A store of another database can be read, so the
/// process stays ready.
async fn check_owners(owners: &StoreOwners, health: &Health, time_limit: Duration) {
    if timeout(time_limit, owners.check_stores()).await.is_err() {
        tracing::warn!("failed to check the owners of the stores in time");
    }
    match owners.find_mismatch() {
        Some(_) => health.mark_degraded(
            Component::StoreOwner,
            "a store belongs to another database; only reads are possible",
        ),
        None => health.mark_up(Component::StoreOwner),
    }
}

/// Follows the database's clock, and reports a large difference: other programs on this machine, such as the identity
/// provider's clients, and the times in its logs are wrong by as much.
async fn follow_clock(
    clock: &SyncedClock,
    database: &Database,
    health: &Health,
    metrics: &Metrics,
    time_limit: Duration,
) {
    let measured = match timeout(time_limit, database.measure_clock(clock.local())).await {
        Ok(Ok(measured)) => measured,
        failed => {
            tracing::warn!(result = ?failed, "failed to measure the database's clock");
            return;
        }
    };
    clock.follow(measured);
    report_clock_offset(measured.offset.as_seconds_f64(), health, metrics);
}

/// Reports the database's clock minus that of this machine.
fn report_clock_offset(offset_seconds: f64, health: &Health, metrics: &Metrics) {
    const OFFSET_SECONDS_MAX: f64 = 5.0;
    metrics.set_clock_offset(offset_seconds);
    if offset_seconds.abs() > OFFSET_SECONDS_MAX {
        tracing::warn!(
            offset_seconds,
            "clock of this machine differs from the database's by more than {OFFSET_SECONDS_MAX} s; synchronize both"
        );
        health.mark_degraded(Component::Clock, "the clock differs from the database's by more than 5 s");
    } else {
        health.mark_up(Component::Clock);
    }
}

/// Probes every store, and returns whether the store for new objects serves at least reads.
async fn probe_stores(stores: &Stores, metrics: &Metrics, time_limit: Duration) -> bool {
    let checks = stores
        .iter()
        .map(|store| async move { (store.provider(), timeout(time_limit, store.check()).await) });
    let mut is_ready = false;
    for (provider, result) in futures::future::join_all(checks).await {
        metrics.set_storage_up(provider, matches!(result, Ok(Ok(()))));
        let is_readable = match &result {
            Ok(checked) => is_readable(checked),
            Err(_elapsed) => false,
        };
        if !matches!(result, Ok(Ok(()))) {
            tracing::warn!(provider, ?result, is_readable, "storage probe failed");
        }
        is_ready |= is_readable && provider == stores.primary().provider();
    }
    is_ready
}

/// Returns whether existing objects can be read. A full store accepts no new ones, which their uploads report.
fn is_readable(checked: &Result<(), StorageError>) -> bool {
    checked.as_ref().err().is_none_or(|error| error.kind == StorageErrorKind::NoSpace)
}

/// Logs an error for every provider that holds files but is not configured, because those files cannot be
/// read. The process starts anyway: files of the configured providers are not affected.
async fn check_providers_in_use(database: Database, stores: Stores) {
    match list_providers_in_use(&database).await {
        Ok(used) => {
            for provider in used.iter().filter(|provider| stores.get(provider).is_err()) {
                tracing::error!(
                    provider,
                    "files are stored with a provider that is not configured; add it to storage.providers"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "failed to list providers in use"),
    }
}

async fn list_providers_in_use(database: &Database) -> Result<Vec<String>, DbError> {
    let mut tx = database.system_tx().await?;
    let used = blobs::list_providers(&mut tx).await?;
    tx.commit().await?;
    Ok(used)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;
    use crate::telemetry::health::ComponentState;

    /// Counts warnings of this file. Clones share the count.
    #[derive(Clone, Default)]
    struct Warnings(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> Layer<S> for Warnings {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            let (level, file) = (event.metadata().level(), event.metadata().file());
            let is_warning = *level == tracing::Level::WARN && file == Some(file!());
            self.0.fetch_add(usize::from(is_warning), Ordering::Relaxed);
        }
    }

    #[test]
    fn large_clock_offset_is_reported() {
        let (health, metrics) = (Health::new(), Metrics::for_tests().unwrap());
        let (warnings, mut expected_warnings) = (Warnings::default(), 0);
        for (offset_seconds, is_large) in
            [(4.5, false), (5.5, true), (-4.5, false), (-5.5, true), (0.0, false)]
        {
            tracing::subscriber::with_default(tracing_subscriber::registry().with(warnings.clone()), || {
                report_clock_offset(offset_seconds, &health, &metrics);
            });
            expected_warnings += usize::from(is_large);
            assert_eq!(warnings.0.load(Ordering::Relaxed), expected_warnings, "{offset_seconds} s");
            let state = health.state().components[&Component::Clock];
            assert_eq!(matches!(state, ComponentState::Degraded(_)), is_large, "{offset_seconds} s");
            let expected = format!("strongroom_clock_offset_seconds {offset_seconds}\n");
            assert!(metrics.render().unwrap().contains(&expected), "{expected}");
        }
    }

    #[test]
    fn full_store_keeps_the_process_ready_for_reads() {
        let failed = |kind| Err(StorageError::new(kind, "check store"));
        assert!(is_readable(&Ok(())));
        assert!(is_readable(&failed(StorageErrorKind::NoSpace)));
        assert!(!is_readable(&failed(StorageErrorKind::Unavailable)));
        assert!(!is_readable(&failed(StorageErrorKind::Transient)));
    }
}
