//! The status of the providers: reachability, latency and usage.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    breakers::{BreakerSummary, summarize_breakers},
    integrity_summary::{ReplicationSummary, ScrubSummary, summarize_replication, summarize_scrubs},
};
use crate::{
    app::{Error, owner::StoreOwners},
    db::{
        Database,
        blobs::{self, ProviderUsage},
        lost_hours,
    },
    domain::{error_text::with_causes, lost_hours::LostHours},
    storage::{BucketProtection, ObjectStorage, Stores, UnknownProvider},
};

/// The number of checks per store. The median latency is reported.
const CHECKS: usize = 5;

/// The status of one provider.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ProviderStatus {
    pub name: String,
    /// Whether new bytes are stored with this provider.
    pub is_written_to: bool,
    /// Whether the provider is reachable and writable.
    pub is_reachable: bool,
    /// The median latency of a check, in milliseconds.
    pub latency_milliseconds: Option<f64>,
    /// The number of objects, according to the database.
    pub objects: u64,
    /// The bytes of these objects.
    pub bytes: u64,
    /// The bytes of these objects that are in the archive class.
    pub archived_bytes: u64,
    /// The free space, if the store reports it.
    pub free_bytes: Option<u64>,
    /// The circuit breakers of background work, if a process that runs it reported any in the last minute.
    pub breaker: Option<BreakerSummary>,
    /// The progress of scrubbing, if it has begun and was added.
    pub scrub: Option<ScrubSummary>,
    /// The blobs without a verified copy, if this is the replica provider and they were added.
    pub replication: Option<ReplicationSummary>,
    /// The buckets whose settings can keep the bytes of deleted objects.
    pub protections: Vec<BucketProtection>,
    /// Whether the store belongs to this database, and deletions do not wait. `None` if it was not checked.
    pub is_owner: Option<bool>,
    /// The lost hours of restores about whose objects no operator has decided.
    pub undecided: Vec<LostHours>,
    /// The error that makes the provider unusable.
    pub problem: Option<String>,
}

/// Checks every provider that is configured or referenced by blobs.
///
/// # Errors
/// Returns an error if the database is unreachable. Errors of a store are in its status.
pub async fn list_provider_statuses(
    db: &Database,
    stores: &Stores,
    owners: &StoreOwners,
) -> Result<Vec<ProviderStatus>, Error> {
    let mut tx = db.system_tx().await?;
    let usages = blobs::list_provider_usage(&mut tx).await?;
    let mut breakers = summarize_breakers(&mut tx).await?;
    tx.commit().await?;
    let mut usages: BTreeMap<String, ProviderUsage> =
        usages.into_iter().map(|usage| (usage.provider.clone(), usage)).collect();
    let mut statuses = Vec::new();
    for store in stores.iter() {
        let undecided = list_undecided(db, store.provider()).await?;
        let usage = usages.remove(store.provider());
        let breaker = breakers.remove(store.provider());
        let mut status = check_provider(store.as_ref(), stores, usage).await;
        if status.is_reachable {
            add_owner(owners, &mut status).await;
        }
        statuses.push(ProviderStatus { breaker, undecided, ..status });
    }
    for (name, usage) in usages {
        let problem = Some(UnknownProvider(name.clone()).to_string());
        statuses.push(ProviderStatus { problem, ..unchecked_status(name, Some(usage)) });
    }
    Ok(statuses)
}

async fn list_undecided(db: &Database, provider: &str) -> Result<Vec<LostHours>, Error> {
    let mut tx = db.system_tx().await?;
    let mut undecided = lost_hours::list(&mut tx, provider).await?;
    tx.commit().await?;
    undecided.retain(LostHours::is_undecided);
    Ok(undecided)
}

/// Adds the progress of scrubbing, and that of the copies at the replica provider, to the status of each provider.
/// `period_days` is the period in which each blob is verified.
///
/// # Errors
/// Returns an error if the database is unreachable.
pub async fn add_integrity_summaries(
    db: &Database,
    statuses: &mut [ProviderStatus],
    period_days: u32,
    replica_provider: Option<&str>,
) -> Result<(), Error> {
    let mut tx = db.system_tx().await?;
    let mut scrubs = summarize_scrubs(&mut tx, period_days).await?;
    let replication = summarize_replication(&mut tx, replica_provider).await?;
    tx.commit().await?;
    for status in statuses {
        status.scrub = scrubs.remove(&status.name);
        if replica_provider == Some(status.name.as_str()) {
            status.replication.clone_from(&replication);
        }
    }
    Ok(())
}

/// Adds whether the store belongs to this database.
async fn add_owner(owners: &StoreOwners, status: &mut ProviderStatus) {
    match owners.inspect_owner(&status.name).await {
        Ok(report) => {
            status.is_owner = Some(report.is_owner);
            status.problem =
                report.mismatch.map(|mismatch| format!("belongs to another database: {mismatch}"));
        }
        Err(error) => status.problem = Some(with_causes(&error)),
    }
}

fn unchecked_status(name: String, usage: Option<ProviderUsage>) -> ProviderStatus {
    ProviderStatus {
        name,
        is_written_to: false,
        is_reachable: false,
        latency_milliseconds: None,
        objects: usage.as_ref().map_or(0, |usage| usage.objects),
        bytes: usage.as_ref().map_or(0, |usage| usage.bytes),
        archived_bytes: usage.as_ref().map_or(0, |usage| usage.archived_bytes),
        free_bytes: None,
        breaker: None,
        scrub: None,
        replication: None,
        protections: Vec::new(),
        is_owner: None,
        undecided: Vec::new(),
        problem: None,
    }
}

async fn check_provider(
    store: &dyn ObjectStorage,
    stores: &Stores,
    usage: Option<ProviderUsage>,
) -> ProviderStatus {
    let name = store.provider().to_owned();
    let is_written_to = stores.primary().provider() == name;
    let mut status = ProviderStatus { is_written_to, ..unchecked_status(name, usage) };
    let mut latencies = Vec::with_capacity(CHECKS);
    for _ in 0..CHECKS {
        let started = Instant::now();
        if let Err(error) = store.check().await {
            status.problem = Some(with_causes(&error));
            return status;
        }
        latencies.push(started.elapsed());
    }
    latencies.sort_unstable();
    status.is_reachable = true;
    status.latency_milliseconds = latencies.get(CHECKS / 2).map(|median| median.as_secs_f64() * 1000.0);
    match store.space().await {
        Ok(space) => status.free_bytes = space.map(|space| space.free_bytes),
        Err(error) => status.problem = Some(with_causes(&error)),
    }
    match store.list_protections().await {
        Ok(protections) => status.protections = protections,
        Err(error) => status.problem = Some(with_causes(&error)),
    }
    status
}
