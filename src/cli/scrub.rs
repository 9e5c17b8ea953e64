//! `strongroom scrub`: reads and verifies stored objects now.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;
use indicatif::HumanBytes;

use super::{
    Failure,
    assemble::assemble_maintenance_app,
    dev::attach::{DevDirectory, Need},
    print_text,
    selection::ProviderSelection,
    spinner::Spinner,
};
use crate::{
    app::integrity::scrub::{ScrubOptions, ScrubProgress, ScrubReport, scrub_provider},
    telemetry,
};

const EXIT_CODES: &str = "Exit codes:
  0  all objects of the pass are verified
  1  the scrub could not run
  2  usage error
  3  objects are damaged, could not be read, or remain";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct ScrubArgs {
    /// Read all objects, in a new pass. Otherwise the current pass is completed.
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    selection: ProviderSelection,
    /// Count the objects that would be read, and read none.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DevDirectory,
}

/// The exit code if objects are damaged or remain.
const INCOMPLETE: u8 = 3;

/// Runs `strongroom scrub`. See [`EXIT_CODES`].
pub(super) async fn run_scrub(args: ScrubArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = args.data.load_config(config, Need::DatabaseAndObjects)?;
    config.validate_for_maintenance()?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let app = assemble_maintenance_app(&config, telemetry.metrics()).await?;
    let options = ScrubOptions { is_new_pass: args.now, is_dry_run: args.dry_run };
    let mut spinner = Spinner::new(args.json)?;
    let mut reports = Vec::new();
    for provider in app.select_providers(args.selection.provider.as_deref()) {
        reports.push(scrub_provider(&app, &provider, options, &mut spinner).await?);
    }
    spinner.finish();
    telemetry.shutdown();
    print_text(&if args.json { serde_json::to_string_pretty(&reports)? } else { table(&reports)? })?;
    let is_clean = |report: &ScrubReport| {
        report.is_dry_run || report.damaged_objects + report.failed_objects + report.left_objects == 0
    };
    Ok(if reports.iter().all(is_clean) { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

impl ScrubProgress for Spinner {
    fn report_progress(&mut self, report: &ScrubReport) {
        self.show(format!(
            "{}: {} objects verified ({}), {} damaged, {} failed",
            report.provider,
            report.verified_objects,
            HumanBytes(report.read_bytes),
            report.damaged_objects,
            report.failed_objects
        ));
    }
}

fn table(reports: &[ScrubReport]) -> Result<String, Failure> {
    let mut table = String::new();
    for report in reports {
        let dry_run = if report.is_dry_run { " (dry run: nothing was read)" } else { "" };
        writeln!(table, "{}{dry_run}", report.provider)?;
        writeln!(
            table,
            "  verified  {} objects, {} read",
            report.verified_objects,
            HumanBytes(report.read_bytes)
        )?;
        writeln!(table, "  damaged   {}", report.damaged_objects)?;
        writeln!(table, "  failed    {}", report.failed_objects)?;
        writeln!(table, "  left      {}", report.left_objects)?;
    }
    Ok(table)
}
