//! `strongroom fsck`.

use std::{fmt::Write as _, io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::{Failure, ambient, assemble::database_options, load, print, providers::open_stores};
use crate::{
    app::integrity::{
        fsck::{Fsck, Progress, Report},
        sample::Depth,
    },
    db::{Database, DatabaseOptions},
};

/// How to check.
#[derive(Debug, Args)]
pub(super) struct FsckArgs {
    /// How many of the stored blobs to read and hash, chosen at random: a number, or a share such as 5%. That each is there
    /// with its size is always checked
    #[arg(long, default_value = "1000", value_name = "COUNT|PERCENT")]
    sample: Depth,
    /// Read and hash everything that is stored
    #[arg(long, conflicts_with = "sample")]
    deep: bool,
    /// How old, in seconds, something that belongs to no row may be; where it is not given, the age at which sweeping as
    /// configured must have removed it
    #[arg(long, value_name = "SECONDS")]
    grace_seconds: Option<u64>,
    /// Make the states of versions say what was found: what is missing or damaged moves to ERROR, and what was and is whole
    /// again moves back. Without it nothing is changed
    #[arg(long)]
    repair: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Sums over everything that is stored take longer than a request may.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3600);

/// A promise does not hold: told apart from a check that could not be made, which is 1.
const VIOLATED: u8 = 3;

/// Exits with 0 when everything holds, 3 when something does not, 1 when it could not be checked.
pub(super) async fn fsck(args: FsckArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = load(config)?;
    config.validate_for_upkeep()?;
    let (clock, ids) = ambient();
    let database = DatabaseOptions { statement_timeout: STATEMENT_TIMEOUT, ..database_options(&config) };
    let fsck = Fsck {
        db: Database::open(&database)?,
        stores: open_stores(&config.storage, &clock, &ids)?,
        clock,
        ids,
        grace: args.grace_seconds.map_or_else(|| config.sweeping.overdue(), Duration::from_secs),
        key_prefix: config.storage.key_prefix.clone(),
        depth: if args.deep { Depth::Everything } else { args.sample },
        is_repairing: args.repair,
    };
    let mut bar = Bar::new(args.json)?;
    let report = fsck.run(&mut bar).await?;
    bar.0.finish_and_clear();
    print(&if args.json { serde_json::to_string_pretty(&report)? } else { table(&report)? })?;
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(VIOLATED) })
}

/// A spinner on standard error, where somebody looks at it.
struct Bar(ProgressBar);

impl Bar {
    fn new(is_quiet: bool) -> Result<Self, Failure> {
        if is_quiet || !std::io::stderr().is_terminal() {
            return Ok(Self(ProgressBar::hidden()));
        }
        Ok(Self(ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}")?)))
    }
}

impl Progress for Bar {
    fn checked(&mut self, report: &Report) {
        self.0.set_message(format!(
            "{} blobs, {} read with {}",
            report.blobs,
            report.hashed_blobs,
            HumanBytes(report.hashed_bytes)
        ));
        self.0.tick();
    }
}

fn table(report: &Report) -> Result<String, Failure> {
    let mut table = String::new();
    for violation in &report.violations {
        writeln!(
            table,
            "invariant {}  tenant {}  {}  {}",
            violation.invariant, violation.tenant, violation.place, violation.what
        )?;
    }
    if report.marked_versions + report.repaired_versions > 0 {
        let (marked, repaired) = (report.marked_versions, report.repaired_versions);
        writeln!(table, "{marked} versions moved to ERROR, {repaired} versions moved back")?;
    }
    writeln!(
        table,
        "{}: {} blobs looked for, {} of them read with {}, {} objects listed, {} of them young and without a row, \
         {} not ours",
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
