//! How the providers are: whether they answer, how fast, and what they hold.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::explained;
use crate::{
    app::Error,
    db::{
        Database,
        blobs::{self, Holding},
    },
    storage::{ObjectStorage, Stores, UnknownProvider},
};

/// How often a store is asked; the median counts.
const CHECKS: usize = 5;

/// One provider.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ProviderStatus {
    /// Its name.
    pub name: String,
    /// Whether new bytes go there.
    pub is_written_to: bool,
    /// Whether it can be reached and written to.
    pub is_reachable: bool,
    /// How long it takes to answer, in milliseconds.
    pub latency_milliseconds: Option<f64>,
    /// How many objects rows say it holds.
    pub objects: u64,
    /// How many bytes those have.
    pub bytes: u64,
    /// How many of these bytes are in its archive class.
    pub archived_bytes: u64,
    /// How much room there is left, where the store knows.
    pub free_bytes: Option<u64>,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

/// Looks at every provider that is configured, or that rows name.
///
/// # Errors
/// When the database does not answer. A store that does not is what this is for.
pub async fn status(db: &Database, stores: &Stores) -> Result<Vec<ProviderStatus>, Error> {
    let mut tx = db.system_tx().await?;
    let held = blobs::holdings(&mut tx).await?;
    tx.commit().await?;
    let mut held: BTreeMap<String, Holding> =
        held.into_iter().map(|holding| (holding.provider.clone(), holding)).collect();
    let mut found = Vec::new();
    for store in stores.iter() {
        let held = held.remove(store.provider());
        found.push(look_at(store.as_ref(), stores, held).await);
    }
    for (name, held) in held {
        let problem = Some(UnknownProvider(name.clone()).to_string());
        found.push(ProviderStatus { problem, ..unseen(name, Some(held)) });
    }
    Ok(found)
}

fn unseen(name: String, held: Option<Holding>) -> ProviderStatus {
    ProviderStatus {
        name,
        is_written_to: false,
        is_reachable: false,
        latency_milliseconds: None,
        objects: held.as_ref().map_or(0, |held| held.objects),
        bytes: held.as_ref().map_or(0, |held| held.bytes),
        archived_bytes: held.as_ref().map_or(0, |held| held.archived_bytes),
        free_bytes: None,
        problem: None,
    }
}

async fn look_at(store: &dyn ObjectStorage, stores: &Stores, held: Option<Holding>) -> ProviderStatus {
    let name = store.provider().to_owned();
    let is_written_to = stores.writing().provider() == name;
    let mut status = ProviderStatus { is_written_to, ..unseen(name, held) };
    let mut took = Vec::with_capacity(CHECKS);
    for _ in 0..CHECKS {
        let started = Instant::now();
        if let Err(error) = store.check().await {
            status.problem = Some(explained(&error));
            return status;
        }
        took.push(started.elapsed());
    }
    took.sort_unstable();
    status.is_reachable = true;
    status.latency_milliseconds = took.get(CHECKS / 2).map(|median| median.as_secs_f64() * 1000.0);
    match store.space().await {
        Ok(space) => status.free_bytes = space.map(|space| space.free_bytes),
        Err(error) => status.problem = Some(explained(&error)),
    }
    status
}
