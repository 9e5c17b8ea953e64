//! `strongroom storage status`: shows every storage provider.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;
use indicatif::HumanBytes;

use super::{
    super::{
        Failure,
        dev::attach::{DevDirectory, Need},
        print_text,
        providers::open_stores,
        system_clock_and_ids,
    },
    INCOMPLETE, open_database, open_owners,
};
use crate::app::storage::{
    breakers::BreakerSummary,
    integrity_summary::{ReplicationSummary, ScrubSummary},
    status::{ProviderStatus, add_integrity_summaries, list_provider_statuses},
};

const EXIT_CODES: &str = "Exit codes:
  0  every provider that is configured or in use is reachable, and no store belongs to another database
  1  the status could not be determined
  2  usage error
  3  a provider is unreachable, or its store belongs to another database";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(in crate::cli) struct StatusArgs {
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DevDirectory,
}

/// Runs `strongroom storage status`. See [`EXIT_CODES`].
pub(super) async fn run_status(args: StatusArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = args.data.load_config(config, Need::DatabaseAndObjects)?;
    config.validate_for_maintenance()?;
    let (clock, ids) = system_clock_and_ids();
    let stores = open_stores(&config.storage, &clock, &ids)?;
    let database = open_database(&config)?;
    let owners = open_owners(&config, &database, &stores, &clock);
    let mut providers = list_provider_statuses(&database, &stores, &owners).await?;
    let replica_provider = config.storage.replica_provider.as_deref();
    add_integrity_summaries(&database, &mut providers, config.scrub.period_days, replica_provider).await?;
    print_text(&if args.json { serde_json::to_string_pretty(&providers)? } else { table(&providers)? })?;
    let is_healthy = providers.iter().all(|provider| provider.is_reachable && provider.problem.is_none());
    Ok(if is_healthy { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

fn table(providers: &[ProviderStatus]) -> Result<String, Failure> {
    let mut table = format!(
        "{:<20} {:<9} {:<18} {:>10} {:>10} {:>12} {:>12} {:>12}\n",
        "PROVIDER", "REACHABLE", "BREAKER", "LATENCY", "OBJECTS", "BYTES", "ARCHIVED", "FREE"
    );
    for provider in providers {
        let name =
            if provider.is_written_to { format!("{} *", provider.name) } else { provider.name.clone() };
        let latency = provider.latency_milliseconds.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        let free = provider.free_bytes.map_or("-".to_owned(), |bytes| HumanBytes(bytes).to_string());
        writeln!(
            table,
            "{name:<20} {:<9} {:<18} {latency:>10} {:>10} {:>12} {:>12} {free:>12}",
            if provider.is_reachable { "yes" } else { "NO" },
            describe_breaker(provider.breaker.as_ref()),
            provider.objects,
            HumanBytes(provider.bytes).to_string(),
            HumanBytes(provider.archived_bytes).to_string(),
        )?;
    }
    for provider in providers {
        for protection in &provider.protections {
            writeln!(table, "{}: bucket {}: {protection}", provider.name, protection.bucket)?;
        }
        for lost in &provider.undecided {
            writeln!(table, "{}: {lost}", provider.name)?;
        }
        if let Some(scrub) = &provider.scrub {
            writeln!(table, "{}: {}", provider.name, describe_scrub(scrub))?;
        }
        if let Some(replication) = &provider.replication {
            writeln!(table, "{}: {}", provider.name, describe_replication(replication))?;
        }
        if let Some(problem) = &provider.problem {
            writeln!(table, "{}: {problem}", provider.name)?;
        }
        if let Some(breaker) = &provider.breaker
            && !breaker.last_error.is_empty()
        {
            writeln!(table, "{}: background work failed: {}", provider.name, breaker.last_error)?;
        }
    }
    writeln!(table, "* new objects are stored here")?;
    Ok(table)
}

/// Describes the breakers of a provider, such as `open (1 of 3)`. Without a report, no process runs background
/// work.
fn describe_breaker(breaker: Option<&BreakerSummary>) -> String {
    match breaker {
        None => "-".to_owned(),
        Some(breaker) if breaker.open_process_count == 0 => breaker.state.to_string(),
        Some(breaker) => {
            format!("{} ({} of {})", breaker.state, breaker.open_process_count, breaker.process_count)
        }
    }
}

/// Describes the progress of scrubbing, such as `100.0 % verified within 30 days, last full pass 2026-11-30T12:00:00Z`.
fn describe_scrub(scrub: &ScrubSummary) -> String {
    let pass = scrub.full_pass_end_time.map_or_else(
        || format!("no full pass yet; the first began {}", scrub.pass_start_time.to_rfc3339()),
        |time| format!("last full pass {}", time.to_rfc3339()),
    );
    format!("{:.1} % verified within {} days, {pass}", scrub.verified_percent, scrub.period_days)
}

/// Describes the lag of the copies.
fn describe_replication(replication: &ReplicationSummary) -> String {
    format!(
        "{} blobs ({}) have no verified copy here; the oldest is {} s old",
        replication.pending_blobs,
        HumanBytes(replication.pending_bytes),
        replication.oldest_pending_seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::breaker::BreakerState, storage::BucketProtection};

    #[test]
    fn buckets_that_keep_bytes_are_in_the_table() {
        let protection = |bucket: &str, has_object_lock| BucketProtection {
            bucket: bucket.to_owned(),
            has_versions: true,
            has_object_lock,
        };
        let status = ProviderStatus {
            name: "s3".to_owned(),
            is_written_to: true,
            is_reachable: true,
            latency_milliseconds: Some(1.0),
            objects: 1,
            bytes: 1,
            archived_bytes: 0,
            free_bytes: None,
            breaker: None,
            scrub: None,
            replication: None,
            protections: vec![protection("files", false), protection("locked", true)],
            is_owner: Some(true),
            undecided: Vec::new(),
            problem: None,
        };
        let shown = table(&[status]).unwrap();
        for line in ["s3: bucket files: versioning: ", "s3: bucket locked: object lock: "] {
            assert!(shown.lines().any(|shown| shown.starts_with(line)), "{shown}");
        }
    }

    #[test]
    fn breakers_are_described_in_the_table() {
        let breaker = |state, open_process_count| BreakerSummary {
            state,
            process_count: 3,
            open_process_count,
            last_error: "no response".to_owned(),
        };
        let described = [
            describe_breaker(None),
            describe_breaker(Some(&breaker(BreakerState::Closed, 0))),
            describe_breaker(Some(&breaker(BreakerState::HalfOpen, 1))),
            describe_breaker(Some(&breaker(BreakerState::Open, 2))),
        ];
        assert_eq!(described, ["-", "closed", "half_open (1 of 3)", "open (2 of 3)"]);
    }
}
