//! Measures the job queue, the ages of ticks, and the progress of scrubbing and copying for the metrics of this
//! process, and reports its circuit breakers.

use std::{collections::HashMap, time::Duration};

use super::tick::TickPart;
use crate::{
    app::{App, storage::breakers::report_breakers},
    db::{DbError, damaged_blobs, jobs::get_depth, replications, schedules, scrubs},
    domain::clock::Timestamp,
    telemetry::metrics::{ReplicationLevel, ScrubLevel, TickLabels},
};

/// Records the depth of the queue and the ages of ticks, and reports the breakers. Errors are logged; the next
/// measurement follows soon.
pub(super) async fn record_background_metrics(app: &App, parts: &[TickPart]) {
    if let Err(error) = measure_queue(app).await {
        tracing::warn!(%error, "failed to measure the queue");
    }
    if let Err(error) = measure_ticks(app, parts).await {
        tracing::warn!(%error, "failed to measure the ages of ticks");
    }
    if let Err(error) = measure_integrity(app).await {
        tracing::warn!(%error, "failed to measure scrubbing and copies");
    }
    if let Err(error) = report_breakers(app).await {
        tracing::warn!(%error, "failed to report the circuit breakers");
    }
}

async fn measure_queue(app: &App) -> Result<(), DbError> {
    let mut tx = app.db().system_tx().await?;
    let depth = get_depth(&mut tx).await?;
    tx.commit().await?;
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    let counts = [
        ("ready", count(depth.ready)),
        ("running", count(depth.running)),
        ("parked", count(depth.parked)),
        ("waiting", count(depth.waiting)),
    ];
    let oldest = Duration::try_from_secs_f64(depth.oldest_due_seconds).unwrap_or_default();
    app.metrics().set_queued_jobs(&counts, oldest);
    Ok(())
}

async fn measure_ticks(app: &App, parts: &[TickPart]) -> Result<(), DbError> {
    let mut labels: HashMap<String, TickLabels> =
        parts.iter().map(|part| (part.schedule_name(), part.labels())).collect();
    let names: Vec<&str> = labels.keys().map(String::as_str).collect();
    let mut tx = app.db().system_tx().await?;
    let ages = schedules::list_ages(&mut tx, &names).await?;
    tx.commit().await?;
    for measured in ages {
        if let Some(labels) = labels.remove(&measured.name) {
            let age = Duration::try_from_secs_f64(measured.age_seconds).unwrap_or_default();
            app.metrics().set_tick_age(labels, age);
        }
    }
    Ok(())
}

/// Reads the progress that the process with the tick has recorded. All processes export it.
async fn measure_integrity(app: &App) -> Result<(), DbError> {
    let mut tx = app.db().system_tx().await?;
    let scrubs = scrubs::list_records(&mut tx).await?;
    let damaged = damaged_blobs::count_damaged(&mut tx).await?;
    let lag = match &app.limits().replica_provider {
        Some(provider) => replications::find_lag(&mut tx, provider).await?,
        None => None,
    };
    tx.commit().await?;
    let providers = app.list_providers();
    for provider in &providers {
        // Also while there are none, so that an alert on the change notices the first one.
        let found = damaged.iter().find(|found| found.provider == *provider);
        let count = found.map_or(0, |found| u64::try_from(found.blob_count).unwrap_or_default());
        app.metrics().set_damaged_blobs(provider, count);
    }
    for (scrub, now) in scrubs.iter().filter(|(scrub, _)| providers.contains(&scrub.provider)) {
        let level =
            ScrubLevel { left_bytes: scrub.left_bytes, oldest: age(scrub.oldest_verified_time, *now) };
        app.metrics().set_scrub_level(&scrub.provider, level);
    }
    if let Some((lag, now)) = lag {
        let level = ReplicationLevel {
            pending_blobs: lag.pending_blob_count,
            pending_bytes: lag.pending_bytes,
            oldest: age(lag.oldest_pending_time, now),
        };
        app.metrics().set_replication_level(&lag.provider, level);
    }
    Ok(())
}

/// Returns the duration since a time, or zero if there is none.
fn age(since: Option<Timestamp>, now: Timestamp) -> Duration {
    since.and_then(|since| (now - since).to_std().ok()).unwrap_or_default()
}
