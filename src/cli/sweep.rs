//! `strongroom sweep`: finds and deletes objects without a database row.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use indicatif::HumanBytes;

use super::{
    Failure,
    assemble::assemble_maintenance_app,
    dev::attach::{DevDirectory, Need},
    print_text,
};
use crate::{
    app::integrity::sweep::{Amount, SweepOptions, SweepReport, sweep_stores},
    telemetry,
};

const EXIT_CODES: &str = "Exit codes:
  0  the sweep is complete
  1  the sweep could not run
  2  usage error
  3  a store rejected part of the sweep";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
#[allow(clippy::struct_excessive_bools, reason = "each is a command-line flag")]
pub(super) struct SweepArgs {
    /// Report what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// The grace period, in seconds: an object without a row is recorded when it is older than this, and
    /// deleted by the first sweep after the same period has passed again. Default: `sweeping.grace_seconds`.
    #[arg(long, value_name = "SECONDS")]
    grace_seconds: Option<u64>,
    /// Confirm that no server or worker is running. This allows a grace period shorter than
    /// `sweeping.grace_seconds`, which would otherwise delete objects of uploads in progress.
    #[arg(long)]
    service_is_stopped: bool,
    /// Confirm that only this database uses the store. Objects are then deleted even if most recent objects
    /// have no row, as after a restore from a backup.
    #[arg(long)]
    trust_database: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DevDirectory,
}

/// The exit code if a store rejected part of the sweep.
const INCOMPLETE: u8 = 3;

/// Runs `strongroom sweep`. See [`EXIT_CODES`].
pub(super) async fn run_sweep(args: SweepArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = args.data.load_config(config, Need::DatabaseAndObjects)?;
    config.validate()?;
    let configured_seconds = config.sweeping.grace_seconds;
    let grace_seconds = args.grace_seconds.unwrap_or(configured_seconds);
    if grace_seconds < configured_seconds && !args.dry_run && !args.service_is_stopped {
        return Err(format!(
            "a grace period of {grace_seconds} s is shorter than sweeping.grace_seconds = {configured_seconds} and could \
             delete objects of uploads in progress; stop every server and worker and add --service-is-stopped"
        )
        .into());
    }
    let telemetry = telemetry::init(&config.telemetry)?;
    let app = assemble_maintenance_app(&config, telemetry.metrics()).await?;
    let options = SweepOptions {
        grace: Duration::from_secs(grace_seconds),
        is_dry_run: args.dry_run,
        is_database_trusted: args.trust_database,
        ..SweepOptions::from_config(&app)
    };
    let result = sweep_stores(&app, options).await;
    telemetry.shutdown();
    let reports = result?;
    print_text(&if args.json { serde_json::to_string_pretty(&reports)? } else { table(&reports)? })?;
    let is_complete = reports.iter().all(|report| report.problems.is_empty());
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

fn table(reports: &[SweepReport]) -> Result<String, Failure> {
    let mut table = String::new();
    for report in reports {
        let dry_run = if report.is_dry_run { " (dry run: nothing was changed)" } else { "" };
        writeln!(table, "{}{dry_run}", report.provider)?;
        writeln!(
            table,
            "  listed    {} objects, {} multipart uploads",
            report.listed_objects, report.listed_multiparts
        )?;
        writeln!(table, "  uploads   {} expired, {} open", report.expired_uploads, report.open_uploads)?;
        writeln!(table, "  found     {}", amount(report.found))?;
        writeln!(table, "  deleted   {}", amount(report.deleted))?;
        writeln!(table, "  pending   {}", amount(report.waiting))?;
        writeln!(table, "  cleared   {} that now have a row", report.cleared)?;
        writeln!(
            table,
            "  skipped   {} within the grace period, {} foreign",
            report.skipped_young, report.skipped_foreign
        )?;
        if report.undecided.count > 0 {
            writeln!(table, "  undecided {} of lost hours", amount(report.undecided))?;
        }
        for problem in &report.problems {
            writeln!(table, "  PROBLEM   {problem}")?;
        }
    }
    Ok(table)
}

fn amount(amount: Amount) -> String {
    format!("{} ({})", amount.count, HumanBytes(amount.bytes))
}
