//! `strongroom storage move`.

use std::{fmt::Write as _, io::IsTerminal as _, path::PathBuf, process::ExitCode};

use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::{
    super::{Failure, ambient, load, print, providers::open_stores},
    NOT_DONE, open_database,
};
use crate::app::storage::move_blobs::{Move, MoveOptions, Progress, Report};

/// What to move.
#[derive(Debug, Args)]
pub(in crate::cli) struct MoveArgs {
    /// The provider to move away from, a name of `storage.providers`
    #[arg(long, value_name = "NAME")]
    from: String,
    /// The provider to move to
    #[arg(long, value_name = "NAME")]
    to: String,
    /// Files that are moved at the same time; each holds up to one part in memory
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Read every copy back and compare it once more
    #[arg(long)]
    read_back: bool,
    /// Only count what would be moved
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exits with 0 when everything was moved and nothing remains, 3 when something does, 1 when nothing could be tried.
pub(super) async fn move_blobs(args: MoveArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = load(config)?;
    config.validate_for_upkeep()?;
    let (clock, ids) = ambient();
    let work = Move {
        db: open_database(&config)?,
        stores: open_stores(&config.storage, &clock, &ids)?,
        clock,
        ids,
        part_size_bytes: config.uploads.part_size_bytes as u64,
        undelete_window_hours: u32::try_from(config.retention.undelete_window_hours).unwrap_or(u32::MAX),
    };
    let options = MoveOptions {
        from: args.from,
        to: args.to,
        concurrency: usize::from(args.concurrency),
        reads_back: args.read_back,
        is_dry_run: args.dry_run,
    };
    let mut bar = Bar::new()?;
    let report = work.run(&options, &mut bar).await?;
    bar.0.finish_and_clear();
    print(&if args.json { serde_json::to_string_pretty(&report)? } else { table(&report, &options)? })?;
    Ok(if report.is_done() { ExitCode::SUCCESS } else { ExitCode::from(NOT_DONE) })
}

/// A spinner on standard error, where somebody looks at it.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Result<Self, Failure> {
        if !std::io::stderr().is_terminal() {
            return Ok(Self(ProgressBar::hidden()));
        }
        Ok(Self(ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}")?)))
    }
}

impl Progress for Bar {
    fn moved(&mut self, report: &Report) {
        self.0.set_message(format!(
            "{} files with {} moved, {} failed",
            report.blobs,
            HumanBytes(report.bytes),
            report.failures.len()
        ));
        self.0.tick();
    }
}

fn table(report: &Report, options: &MoveOptions) -> Result<String, Failure> {
    let mut table = String::new();
    for failure in &report.failures {
        writeln!(table, "not moved  tenant {}  {}  {}", failure.tenant, failure.key, failure.why)?;
    }
    writeln!(
        table,
        "{} {} files with {} from `{}` to `{}`; {} failed, {} were purged or moved meanwhile",
        if report.is_dry_run { "would move" } else { "moved" },
        report.blobs,
        HumanBytes(report.bytes),
        options.from,
        options.to,
        report.failures.len(),
        report.overtaken,
    )?;
    if report.released > 0 {
        let (released, from) = (report.released, &options.from);
        writeln!(table, "{released} purged files stay with `{from}` until their undelete window has passed")?;
    }
    if report.unverified > 0 {
        let (unverified, from) = (report.unverified, &options.from);
        writeln!(
            table,
            "{unverified} files that no worker has verified yet stay with `{from}` until one has"
        )?;
    }
    if report.refused > 0 {
        let (refused, from) = (report.refused, &options.from);
        writeln!(table, "{refused} refused uploads stay with `{from}` until their versions are deleted")?;
    }
    if !report.is_dry_run {
        let (files, uploads, from) =
            (report.left_blobs + report.unverified, report.open_uploads, &options.from);
        write!(table, "{files} files and {uploads} open uploads remain with `{from}`")?;
        writeln!(table, "{}", if files + uploads > 0 { "; run it again until 0 remain" } else { "" })?;
    }
    if report.is_written_to {
        let (from, to) = (&options.from, &options.to);
        writeln!(
            table,
            "warning: new files still go to `{from}`: set `storage.provider` to `{to}` and restart every server first"
        )?;
    }
    if report.is_cut_short {
        writeln!(table, "stopped early, because too much failed; run it again once that is mended")?;
    }
    Ok(table)
}
