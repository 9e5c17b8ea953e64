//! The progress of scrubbing and of the copies of blobs, for `storage status`.

use std::collections::BTreeMap;

use chrono::Duration;

use crate::{
    app::Error,
    db::{SystemTx, replications, scrub_counts, scrubs},
    domain::clock::Timestamp,
};

/// The progress of scrubbing one provider.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ScrubSummary {
    /// When the current pass began.
    pub pass_start_time: Timestamp,
    /// The bytes that it must still read, as far as known.
    pub left_bytes: u64,
    /// When the last complete pass began.
    pub full_pass_start_time: Option<Timestamp>,
    /// When the last complete pass ended.
    pub full_pass_end_time: Option<Timestamp>,
    /// The configured period, in days.
    pub period_days: u32,
    /// The part of the objects that were verified within the period, in percent.
    pub verified_percent: f64,
}

/// The blobs without a verified copy.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ReplicationSummary {
    pub pending_blobs: u64,
    pub pending_bytes: u64,
    /// The age of the oldest blob that waits for its copy, in seconds. 0 if none waits.
    pub oldest_pending_seconds: u64,
}

/// Summarizes the scrubbing of each provider. Counts all blobs.
pub(super) async fn summarize_scrubs(
    tx: &mut SystemTx,
    period_days: u32,
) -> Result<BTreeMap<String, ScrubSummary>, Error> {
    let mut summaries = BTreeMap::new();
    let period = Duration::days(i64::from(period_days));
    for (record, now) in scrubs::list_records(tx).await? {
        let verified_percent = scrub_counts::get_verified_percent(tx, &record.provider, period, now).await?;
        let summary = ScrubSummary {
            pass_start_time: record.pass_start_time,
            left_bytes: record.left_bytes,
            full_pass_start_time: record.full_pass_start_time,
            full_pass_end_time: record.full_pass_end_time,
            period_days,
            verified_percent,
        };
        summaries.insert(record.provider, summary);
    }
    Ok(summaries)
}

/// Summarizes the blobs without a copy at the replica provider.
pub(super) async fn summarize_replication(
    tx: &mut SystemTx,
    replica_provider: Option<&str>,
) -> Result<Option<ReplicationSummary>, Error> {
    let Some(provider) = replica_provider else { return Ok(None) };
    let lag = replications::find_lag(tx, provider).await?;
    Ok(lag.map(|(lag, now)| ReplicationSummary {
        pending_blobs: lag.pending_blob_count,
        pending_bytes: lag.pending_bytes,
        oldest_pending_seconds: lag
            .oldest_pending_time
            .and_then(|time| (now - time).to_std().ok())
            .map_or(0, |age| age.as_secs()),
    }))
}
