//! `strongroom restore-check`: compares the database with the object stores after a restore, and applies a decision
//! about the objects of the lost hours.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;
use indicatif::HumanBytes;

use super::{
    Failure,
    assemble::assemble_maintenance_app,
    confirmation::{NOT_CONFIRMED, is_confirmed},
    dev::attach::Need,
    print_text,
    selection::{ObjectListArgs, ProviderSelection},
    spinner::Spinner,
};
use crate::{
    app::restore::{
        check::{RestoreDecision, RestoreOptions, RestoreProgress, check_restore},
        report::{ObjectTotals, RestoreReport},
    },
    telemetry,
};

const EXIT_CODES: &str = "Exit codes:
  0  nothing was found, or all objects of the lost hours are decided
  1  the check could not be completed
  2  usage error
  3  something was found: lost hours are undecided, objects are unknown, missing or left
  4  the decision was not confirmed; nothing was changed";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
#[allow(clippy::struct_excessive_bools, reason = "each is a command-line flag")]
pub(super) struct RestoreCheckArgs {
    /// Make the unknown objects of the lost hours files of the category `recovered`, which only admins of their tenant
    /// see. Objects that do not fit the quota are left.
    #[arg(long, conflicts_with_all = ["quarantine_objects", "discard"])]
    readopt: bool,
    /// Keep the unknown objects of the lost hours: no sweep deletes them. See `strongroom quarantine`.
    #[arg(long, conflicts_with = "discard")]
    quarantine_objects: bool,
    /// The reason that is recorded with quarantined objects.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "unknown after a restore",
        requires = "quarantine_objects"
    )]
    reason: String,
    /// Let sweeps delete the unknown objects of the lost hours.
    #[arg(long)]
    discard: bool,
    /// Apply the decision without asking.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    list: ObjectListArgs,
}

/// The exit code if something was found.
const FOUND: u8 = 3;

impl RestoreCheckArgs {
    fn decision(&self) -> Option<RestoreDecision> {
        if self.readopt {
            Some(RestoreDecision::Readopt)
        } else if self.quarantine_objects {
            Some(RestoreDecision::Quarantine { reason: self.reason.clone() })
        } else {
            self.discard.then_some(RestoreDecision::Discard)
        }
    }
}

/// Returns the effect of a decision, as a part of a question.
fn describe_decision(decision: &RestoreDecision) -> &'static str {
    match decision {
        RestoreDecision::Readopt => "make the unknown objects of the lost hours files again",
        RestoreDecision::Quarantine { .. } => "quarantine the unknown objects of the lost hours",
        RestoreDecision::Discard => "let sweeps delete the unknown objects of the lost hours",
    }
}

/// Runs `strongroom restore-check`. See [`EXIT_CODES`].
pub(super) async fn run_restore_check(
    args: RestoreCheckArgs,
    config: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let decision = args.decision();
    let ObjectListArgs { selection: ProviderSelection { provider }, limit, json, data } = args.list;
    let config = data.load_config(config, Need::DatabaseAndObjects)?;
    config.validate_for_maintenance()?;
    if let Some(decision) = decision.as_ref().filter(|_| !args.yes) {
        let effect = describe_decision(decision);
        let scope = provider.as_deref().unwrap_or("all");
        if !is_confirmed(&format!("This will {effect} (provider: {scope}). Continue? [y/N] "), effect)? {
            return Ok(ExitCode::from(NOT_CONFIRMED));
        }
    }
    let telemetry = telemetry::init(&config.telemetry)?;
    let app = assemble_maintenance_app(&config, telemetry.metrics()).await?;
    let options = RestoreOptions { provider, decision, entries_max: limit };
    let mut spinner = Spinner::new(json)?;
    let checked = check_restore(&app, &options, &mut spinner).await;
    spinner.finish();
    telemetry.shutdown();
    let reports = checked?;
    print_text(&if json { serde_json::to_string_pretty(&reports)? } else { table(&reports)? })?;
    let has_findings = reports.iter().any(RestoreReport::has_findings);
    Ok(if has_findings { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

impl RestoreProgress for Spinner {
    fn report_progress(&mut self, report: &RestoreReport) {
        self.show(format!(
            "{}: {} objects listed, {} of the lost hours, {} readopted, {} blobs looked up, {} missing",
            report.provider,
            report.listed_objects,
            report.lost_hours.count,
            report.readopted.count,
            report.checked_blobs,
            report.missing.count
        ));
    }
}

fn table(reports: &[RestoreReport]) -> Result<String, Failure> {
    let mut table = String::new();
    for report in reports {
        write_report(&mut table, report)?;
    }
    Ok(table)
}

fn write_report(table: &mut String, report: &RestoreReport) -> Result<(), Failure> {
    let owner = if report.is_owner { "" } else { " (belongs to another database or to none: read only)" };
    writeln!(table, "{}{owner}", report.provider)?;
    for lost in &report.restores {
        let state = match (lost.decide_time, report.is_owner) {
            (Some(time), _) => format!("decided {}", time.to_rfc3339()),
            (None, true) => "UNDECIDED".to_owned(),
            (None, false) => "not adopted yet; run `strongroom storage adopt`".to_owned(),
        };
        let (start, end) = (lost.start_time.to_rfc3339(), lost.end_time.to_rfc3339());
        writeln!(table, "  lost hours     {start} to {end}: {state}")?;
    }
    writeln!(table, "  listed         {} objects, {} foreign", report.listed_objects, report.foreign)?;
    for (label, totals) in [
        ("other tenants", report.foreign_lost_hours),
        ("unknown, lost hours", report.lost_hours),
        ("unknown, overdue", report.overdue),
        ("unknown, recent", report.recent),
        ("missing", report.missing),
        ("readopted", report.readopted),
        ("quarantined", report.quarantined),
        ("discarded", report.discarded),
        ("left", report.left),
        ("in quarantine", report.quarantine),
    ] {
        if totals.count > 0 {
            writeln!(table, "  {label:<20} {}", describe(totals))?;
        }
    }
    for group in report.ages.iter().filter(|group| group.totals.count > 0) {
        let age = match group.age_seconds_max {
            Some(seconds) => format!("younger than {} h", seconds / 3_600),
            None => "older".to_owned(),
        };
        writeln!(table, "  unknown, {age}: {}", describe(group.totals))?;
    }
    for (tenant, totals) in &report.tenants {
        writeln!(table, "  unknown, tenant {tenant}: {}", describe(*totals))?;
    }
    for object in &report.objects {
        let (time, size) = (object.modify_time.to_rfc3339(), HumanBytes(object.size_bytes));
        writeln!(table, "  unknown  {time}  {size}  {}", object.key)?;
    }
    for missing in &report.missing_blobs {
        writeln!(table, "  missing  tenant {}  {}", missing.tenant, missing.key)?;
        for version in &missing.versions {
            writeln!(table, "    file {} version {}  {}", version.file, version.version, version.name)?;
        }
    }
    for left in &report.left_objects {
        writeln!(table, "  left     {}: {}", left.key, left.reason)?;
    }
    Ok(())
}

fn describe(totals: ObjectTotals) -> String {
    format!("{} ({})", totals.count, HumanBytes(totals.bytes))
}
