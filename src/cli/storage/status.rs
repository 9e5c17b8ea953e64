//! `strongroom storage status`.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;
use indicatif::HumanBytes;

use super::{
    super::{Failure, ambient, load, print, providers::open_stores},
    NOT_DONE, open_database,
};
use crate::app::storage::status::{ProviderStatus, status as look};

/// How to show it.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exits with 0 when every provider that is configured or in use answers, 3 when one does not, 1 when it could not be
/// asked.
pub(super) async fn status(args: StatusArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = load(config)?;
    config.validate_for_upkeep()?;
    let (clock, ids) = ambient();
    let stores = open_stores(&config.storage, &clock, &ids)?;
    let providers = look(&open_database(&config)?, &stores).await?;
    print(&if args.json { serde_json::to_string_pretty(&providers)? } else { table(&providers)? })?;
    let is_well = providers.iter().all(|provider| provider.is_reachable);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(NOT_DONE) })
}

fn table(providers: &[ProviderStatus]) -> Result<String, Failure> {
    let mut table = format!(
        "{:<20} {:<9} {:>10} {:>10} {:>12} {:>12} {:>12}\n",
        "PROVIDER", "REACHABLE", "LATENCY", "OBJECTS", "BYTES", "ARCHIVED", "FREE"
    );
    for provider in providers {
        let name =
            if provider.is_written_to { format!("{} *", provider.name) } else { provider.name.clone() };
        let latency = provider.latency_milliseconds.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        let free = provider.free_bytes.map_or("-".to_owned(), |bytes| HumanBytes(bytes).to_string());
        writeln!(
            table,
            "{name:<20} {:<9} {latency:>10} {:>10} {:>12} {:>12} {free:>12}",
            if provider.is_reachable { "yes" } else { "NO" },
            provider.objects,
            HumanBytes(provider.bytes).to_string(),
            HumanBytes(provider.archived_bytes).to_string(),
        )?;
    }
    for provider in providers {
        if let Some(problem) = &provider.problem {
            writeln!(table, "{}: {problem}", provider.name)?;
        }
    }
    writeln!(table, "* new bytes go here")?;
    Ok(table)
}
