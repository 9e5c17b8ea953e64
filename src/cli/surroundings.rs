//! What stands beside the work of a process, whatever that is: a look at database and stores every few seconds, and the small
//! HTTP port that tells of it.

use std::time::Duration;

use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

use super::start_error::StartError;
use crate::{
    config::EdgeConfig,
    db::{Database, DbError, blobs},
    edge::{self, EdgeState},
    storage::Stores,
    telemetry::{Health, Metrics, health::Component},
};

/// What is looked at, and who is told.
#[derive(Clone)]
pub(super) struct Observed {
    pub(super) database: Database,
    pub(super) stores: Stores,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
}

/// The tasks beside the work.
pub(super) struct Surroundings {
    probes: JoinHandle<()>,
    unknown: JoinHandle<()>,
    edge: JoinHandle<std::io::Result<()>>,
    stop_edge: oneshot::Sender<()>,
}

impl Surroundings {
    /// Begins to look, until `stopped`, and to answer, until [`Self::end`].
    pub(super) fn start(
        observed: Observed,
        edge: TcpListener,
        config: &EdgeConfig,
        stopped: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let Observed { database, stores, health, metrics } = observed;
        let state = EdgeState { health: health.clone(), metrics: metrics.clone() };
        let config = config.clone();
        let (stop_edge, stopping) = oneshot::channel::<()>();
        Self {
            unknown: tokio::spawn(look_for_unknown_providers(database.clone(), stores.clone())),
            probes: tokio::spawn(probe(database, stores, health, metrics, stopped)),
            edge: tokio::spawn(async move {
                edge::serve(edge, &config, state, async {
                    let _ = stopping.await;
                })
                .await
            }),
            stop_edge,
        }
    }

    /// Ends them. Until then probes answer.
    pub(super) async fn end(self) -> Result<(), StartError> {
        let _ = self.stop_edge.send(());
        self.probes.abort();
        self.unknown.abort();
        self.edge.await.map_err(|error| StartError::Serve(error.into()))??;
        Ok(())
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
