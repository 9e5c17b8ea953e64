//! `strongroom sweep`.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use indicatif::HumanBytes;

use super::{Failure, assemble::upkeep, load, print};
use crate::{
    app::integrity::sweep::{Amount, Report, SweepOptions, sweep as sweep_stores},
    telemetry,
};

/// How to sweep.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(super) struct SweepArgs {
    /// Look and report, change nothing
    #[arg(long)]
    dry_run: bool,
    /// How old, in seconds, something without a row must be to be found, and how long it then waits to be removed by a
    /// later sweep; `sweeping.grace_seconds` where it is not given
    #[arg(long, value_name = "SECONDS")]
    grace_seconds: Option<u64>,
    /// No replica of the service is running: the grace period may be shorter than `sweeping.grace_seconds`, which uploads
    /// rely on
    #[arg(long)]
    service_is_stopped: bool,
    /// The store is this database's alone: remove also where most of what was stored lately has no row in it, because it was
    /// restored from a backup
    #[arg(long)]
    trust_database: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Something could not be done this time: told apart from a sweep that could not be made, which is 1.
const INCOMPLETE: u8 = 3;

/// Exits with 0 when all was done that was to be done, 3 when a store did not let it, 1 when it could not be tried.
pub(super) async fn sweep(args: SweepArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = load(config)?;
    config.validate()?;
    let configured_seconds = config.sweeping.grace_seconds;
    let grace_seconds = args.grace_seconds.unwrap_or(configured_seconds);
    if grace_seconds < configured_seconds && !args.dry_run && !args.service_is_stopped {
        return Err(format!(
            "a grace period of {grace_seconds} s is shorter than sweeping.grace_seconds = {configured_seconds}: it could \
             take the bytes of an upload that is about to be committed. Stop every replica and add --service-is-stopped"
        )
        .into());
    }
    let telemetry = telemetry::init(&config.telemetry)?;
    let app = upkeep(&config, telemetry.metrics())?;
    let options = SweepOptions {
        grace: Duration::from_secs(grace_seconds),
        is_dry_run: args.dry_run,
        is_database_trusted: args.trust_database,
        ..SweepOptions::configured(&app)
    };
    let swept = sweep_stores(&app, options).await;
    telemetry.shutdown();
    let reports = swept?;
    print(&if args.json { serde_json::to_string_pretty(&reports)? } else { table(&reports)? })?;
    let is_complete = reports.iter().all(|report| report.problems.is_empty());
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

fn table(reports: &[Report]) -> Result<String, Failure> {
    let mut table = String::new();
    for report in reports {
        let dry = if report.is_dry_run { " (dry run: nothing was changed)" } else { "" };
        writeln!(table, "{}{dry}", report.provider)?;
        writeln!(
            table,
            "  listed          {} objects, {} unfinished uploads",
            report.listed_objects, report.listed_multiparts
        )?;
        writeln!(
            table,
            "  uploads         {} given up, {} still open",
            report.expired_uploads, report.open_uploads
        )?;
        writeln!(table, "  found           {}", amount(report.found))?;
        writeln!(table, "  removed         {}", amount(report.removed))?;
        writeln!(table, "  waiting         {}", amount(report.waiting))?;
        writeln!(table, "  owned after all {}", report.forgotten)?;
        writeln!(
            table,
            "  left alone      {} too young, {} not ours",
            report.skipped_young, report.skipped_foreign
        )?;
        for problem in &report.problems {
            writeln!(table, "  PROBLEM         {problem}")?;
        }
    }
    Ok(table)
}

fn amount(amount: Amount) -> String {
    format!("{} with {}", amount.count, HumanBytes(amount.bytes))
}
