//! `strongroom fsck`: compares the database with the object stores.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use indicatif::HumanBytes;

use super::{
    Failure,
    assemble::database_options,
    database_clock,
    dev::attach::{DevDirectory, Need},
    print_text,
    providers::open_stores,
    spinner::Spinner,
    system_ids,
};
use crate::{
    app::integrity::{
        fsck::{Fsck, FsckProgress, FsckReport},
        sample::SampleSize,
    },
    db::{Database, DatabaseOptions},
    telemetry,
};

const EXIT_CODES: &str = "Exit codes:
  0  all invariants hold
  1  the check could not be completed
  2  usage error
  3  an invariant is violated";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct FsckArgs {
    /// How many randomly chosen blobs to read and hash: a count, or a share such as 5%. The existence and
    /// size of every blob are always checked.
    #[arg(long, default_value = "1000", value_name = "COUNT|PERCENT")]
    sample: SampleSize,
    /// Read and hash every blob.
    #[arg(long, conflicts_with = "sample")]
    deep: bool,
    /// Report objects and multipart uploads without a database row if they are older than this, in seconds.
    /// Default: the age by which the configured sweeps have deleted them.
    #[arg(long, value_name = "SECONDS")]
    grace_seconds: Option<u64>,
    /// Update the states of versions: versions with a missing or damaged object become ERROR, and versions in
    /// ERROR whose object is intact again get their earlier state back. Also records missing block checksums of the
    /// blobs that are read, and replaces wrong ones. Without this flag, fsck changes nothing.
    #[arg(long)]
    repair: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DevDirectory,
}

/// Aggregates over all blobs may exceed the statement timeout for requests.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3600);

/// The exit code if an invariant is violated.
const VIOLATED: u8 = 3;

/// Runs `strongroom fsck`. See [`EXIT_CODES`].
pub(super) async fn run_fsck(args: FsckArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = args.data.load_config(config, Need::DatabaseAndObjects)?;
    config.validate_for_maintenance()?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let database = DatabaseOptions { statement_timeout: STATEMENT_TIMEOUT, ..database_options(&config) };
    let db = Database::open(&database)?;
    let (clock, ids) = (database_clock(&db).await?, system_ids());
    let fsck = Fsck {
        db,
        stores: open_stores(&config.storage, &clock, &ids)?,
        metrics: telemetry.metrics(),
        clock,
        ids,
        grace: args.grace_seconds.map_or_else(|| config.sweeping.overdue_age(), Duration::from_secs),
        key_prefix: config.storage.key_prefix.clone(),
        depth: if args.deep { SampleSize::Everything } else { args.sample },
        is_repairing: args.repair,
        audit_days: u32::try_from(config.retention.audit_days).unwrap_or(u32::MAX),
    };
    let mut spinner = Spinner::new(args.json)?;
    let report = fsck.check_all(&mut spinner).await?;
    spinner.finish();
    telemetry.shutdown();
    print_text(&if args.json { serde_json::to_string_pretty(&report)? } else { table(&report)? })?;
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(VIOLATED) })
}

impl FsckProgress for Spinner {
    fn report_progress(&mut self, report: &FsckReport) {
        self.show(format!(
            "{} blobs checked, {} read ({})",
            report.blobs,
            report.hashed_blobs,
            HumanBytes(report.hashed_bytes)
        ));
    }
}

fn table(report: &FsckReport) -> Result<String, Failure> {
    let mut table = String::new();
    for violation in &report.violations {
        writeln!(
            table,
            "{}  tenant {}  {}  {}",
            violation.invariant.as_str(),
            violation.tenant,
            violation.subject,
            violation.problem
        )?;
    }
    if report.marked_versions + report.repaired_versions > 0 {
        let (marked, repaired) = (report.marked_versions, report.repaired_versions);
        writeln!(table, "{marked} versions set to ERROR, {repaired} versions restored from ERROR")?;
    }
    writeln!(
        table,
        "{}: {} blobs checked, {} of them read ({}); {} objects listed, {} without a row but within the grace period, \
         {} foreign",
        if report.violations.is_empty() { "clean" } else { "NOT CLEAN" },
        report.blobs,
        report.hashed_blobs,
        HumanBytes(report.hashed_bytes),
        report.objects,
        report.young_objects,
        report.foreign,
    )?;
    Ok(table)
}
