//! `strongroom quarantine`: lists, releases and deletes the objects that were quarantined after a restore.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use indicatif::HumanBytes;

use super::{
    Failure,
    assemble::assemble_maintenance_app,
    confirmation::{NOT_CONFIRMED, is_confirmed},
    dev::attach::Need,
    print_text,
    selection::{ObjectListArgs, ProviderSelection},
};
use crate::{
    app::restore::quarantine::{QuarantineAction, QuarantineFilter, QuarantineReport, process_quarantine},
    domain::ids::TenantId,
    telemetry,
};

const EXIT_CODES: &str = "Exit codes:
  0  the command is complete
  1  the command could not run
  2  usage error
  3  objects could not be deleted
  4  the command was not confirmed; nothing was changed";

#[derive(Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// List quarantined objects.
    #[command(after_help = EXIT_CODES)]
    List(ListArgs),
    /// End the quarantine of objects. Sweeps delete them later; `strongroom restore-check --readopt` makes those of
    /// lost hours files again.
    #[command(after_help = EXIT_CODES)]
    Release(ChangeArgs),
    /// Delete quarantined objects from their stores.
    #[command(after_help = EXIT_CODES)]
    Delete(ChangeArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    selection: Selection,
    /// Process all selected objects, also without --tenant and --key.
    #[arg(long, required_unless_present_any = ["tenant", "key"])]
    all: bool,
    /// Process the objects without asking.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Selection {
    /// The tenant of the objects.
    #[arg(long, value_name = "ID")]
    tenant: Option<TenantId>,
    /// The key of an object. May be repeated.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    #[command(flatten)]
    list: ObjectListArgs,
}

/// The exit code if objects could not be deleted.
const INCOMPLETE: u8 = 3;

/// Runs `strongroom quarantine`. See [`EXIT_CODES`].
pub(super) async fn run_quarantine(
    command: QuarantineCommand,
    config: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let (selection, action, question) = match command {
        QuarantineCommand::List(args) => (args.selection, QuarantineAction::List, None),
        QuarantineCommand::Release(args) => {
            let question = (!args.yes)
                .then_some("release the selected objects, which sweeps delete unless they are readopted");
            (args.selection, QuarantineAction::Release, question)
        }
        QuarantineCommand::Delete(args) => {
            let question = (!args.yes).then_some("delete the bytes of the selected objects");
            (args.selection, QuarantineAction::Delete, question)
        }
    };
    let Selection { tenant, key: keys, list } = selection;
    let ObjectListArgs { selection: ProviderSelection { provider }, limit, json, data } = list;
    let config = data.load_config(config, Need::DatabaseAndObjects)?;
    config.validate_for_maintenance()?;
    if let Some(effect) = question
        && !is_confirmed(&format!("This will {effect}. Continue? [y/N] "), effect)?
    {
        return Ok(ExitCode::from(NOT_CONFIRMED));
    }
    let telemetry = telemetry::init(&config.telemetry)?;
    let app = assemble_maintenance_app(&config, telemetry.metrics()).await?;
    let filter = QuarantineFilter { provider, tenant, keys };
    let processed = process_quarantine(&app, &filter, action, limit).await;
    telemetry.shutdown();
    let report = processed?;
    print_text(&if json { serde_json::to_string_pretty(&report)? } else { table(&report, action)? })?;
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

fn table(report: &QuarantineReport, action: QuarantineAction) -> Result<String, Failure> {
    let mut table = String::new();
    for object in &report.objects {
        let size = HumanBytes(u64::try_from(object.size_bytes).unwrap_or_default());
        writeln!(
            table,
            "{}  {}  {size}  {}  {}",
            object.quarantine_time.to_rfc3339(),
            object.provider,
            object.key,
            object.reason
        )?;
    }
    for failure in &report.failures {
        writeln!(table, "FAILED  {failure}")?;
    }
    let verb = match action {
        QuarantineAction::List => "quarantined",
        QuarantineAction::Release => "released",
        QuarantineAction::Delete => "deleted",
    };
    let failed = report.failures.len();
    let count = report.selected.count.saturating_sub(u64::try_from(failed).unwrap_or_default());
    writeln!(table, "{count} {verb}, {failed} failed")?;
    Ok(table)
}
