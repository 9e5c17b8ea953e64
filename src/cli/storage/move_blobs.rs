//! `strongroom storage move`: moves files from one storage provider to another.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;
use indicatif::HumanBytes;

use super::{
    super::{
        Failure, database_clock,
        dev::attach::{DevDirectory, Need},
        print_text,
        providers::open_stores,
        spinner::Spinner,
        system_ids,
    },
    INCOMPLETE, open_database, open_owners,
};
use crate::app::storage::move_blobs::{BlobMover, MoveOptions, MoveProgress, MoveReport};

const EXIT_CODES: &str = "Exit codes:
  0  everything was moved, and nothing remains
  1  the move could not start
  2  usage error
  3  files or open uploads remain";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(in crate::cli) struct MoveArgs {
    /// The provider to move files from, as named in `storage.providers`.
    #[arg(long, value_name = "NAME")]
    from: String,
    /// The provider to move files to.
    #[arg(long, value_name = "NAME")]
    to: String,
    /// How many files to move at the same time; each uses up to one part of memory.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Read every copy back and verify it.
    #[arg(long)]
    read_back: bool,
    /// Count the files that would be moved, and move none.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DevDirectory,
}

/// Runs `strongroom storage move`. See [`EXIT_CODES`].
pub(super) async fn run_move(args: MoveArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = args.data.load_config(config, Need::DatabaseAndObjects)?;
    config.validate_for_maintenance()?;
    if config.storage.replica_provider.as_deref() == Some(args.to.as_str()) {
        return Err(format!(
            "`{}` is storage.replica_provider, which has the copies; name another target, or set another replica provider",
            args.to
        )
        .into());
    }
    let db = open_database(&config)?;
    let (clock, ids) = (database_clock(&db).await?, system_ids());
    let stores = open_stores(&config.storage, &clock, &ids)?;
    let owners = open_owners(&config, &db, &stores, &clock);
    let work = BlobMover {
        db,
        stores: owners.checked_stores(),
        clock,
        ids,
        part_size_bytes: config.uploads.part_size_bytes as u64,
        blob_deletion_delay_hours: u32::try_from(config.retention.blob_deletion_delay_hours)
            .unwrap_or(u32::MAX),
    };
    let options = MoveOptions {
        from: args.from,
        to: args.to,
        concurrency: usize::from(args.concurrency),
        reads_back: args.read_back,
        is_dry_run: args.dry_run,
    };
    let mut spinner = Spinner::new(args.json)?;
    let report = work.move_blobs(&options, &mut spinner).await?;
    spinner.finish();
    print_text(&if args.json { serde_json::to_string_pretty(&report)? } else { table(&report, &options)? })?;
    Ok(if report.is_done() { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

impl MoveProgress for Spinner {
    fn report_progress(&mut self, report: &MoveReport) {
        self.show(format!(
            "{} files ({}) moved, {} failed",
            report.blobs,
            HumanBytes(report.bytes),
            report.failures.len()
        ));
    }
}

fn table(report: &MoveReport, options: &MoveOptions) -> Result<String, Failure> {
    let mut table = String::new();
    for failure in &report.failures {
        writeln!(table, "not moved  tenant {}  {}  {}", failure.tenant, failure.key, failure.reason)?;
    }
    writeln!(
        table,
        "{} {} files ({}) from `{}` to `{}`; {} failed, {} were purged or moved by another process",
        if report.is_dry_run { "would move" } else { "moved" },
        report.blobs,
        HumanBytes(report.bytes),
        options.from,
        options.to,
        report.failures.len(),
        report.superseded,
    )?;
    if report.released > 0 {
        let (released, from) = (report.released, &options.from);
        writeln!(table, "{released} purged files remain in `{from}` until their scheduled deletion")?;
    }
    if report.unverified > 0 {
        let (unverified, from) = (report.unverified, &options.from);
        writeln!(table, "{unverified} files remain in `{from}` until a worker has verified them")?;
    }
    if report.refused > 0 {
        let (refused, from) = (report.refused, &options.from);
        writeln!(table, "{refused} rejected uploads remain in `{from}` until their versions are deleted")?;
    }
    if !report.is_dry_run {
        let (files, uploads, from) =
            (report.left_blobs + report.unverified, report.open_uploads, &options.from);
        write!(table, "{files} files and {uploads} open uploads remain in `{from}`")?;
        writeln!(
            table,
            "{}",
            if files + uploads > 0 { "; run the command again until 0 remain" } else { "" }
        )?;
    }
    if report.is_written_to {
        let (from, to) = (&options.from, &options.to);
        writeln!(
            table,
            "warning: new files are still stored in `{from}`; set `storage.provider` to `{to}` and restart every server first"
        )?;
    }
    if report.is_cut_short {
        writeln!(
            table,
            "stopped early because too many files failed; fix the cause and run the command again"
        )?;
    }
    Ok(table)
}
