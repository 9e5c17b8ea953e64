//! `strongroom jobs`: lists, shows, retries and discards background jobs.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};

use super::{
    Failure,
    assemble::database_options,
    dev::attach::{DevDirectory, Need},
    print_text,
};
use crate::{
    app::jobs::{
        JobError, JobSummary,
        discard::discard_job,
        get::get_job,
        list::list_jobs,
        retry::retry_job,
        retry_all::{RetryReport, retry_all_jobs},
    },
    db::{Database, jobs::JobState},
    domain::ids::JobId,
};

const EXIT_CODES: &str = "Exit codes:
  0  success
  1  any other error
  2  usage error
  3  there is no such job, its state does not allow the command, or some jobs were skipped";

#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// List the jobs that are ready, running or parked, in the order of their next attempt.
    List(ListArgs),
    /// Show a job and the error of its last attempt.
    Show(JobArgs),
    /// Make a parked job, or all parked jobs, ready again, with their attempts reset to 0.
    Retry(RetryArgs),
    /// Delete a job that is not running.
    Discard(JobArgs),
}

impl JobsCommand {
    fn data(&self) -> &DevDirectory {
        match self {
            Self::List(args) => &args.data,
            Self::Retry(args) => &args.data,
            Self::Show(args) | Self::Discard(args) => &args.data,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// List only jobs in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// The maximum number of jobs to list, from 1 to 10000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DevDirectory,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct JobArgs {
    /// The id of the job.
    id: JobId,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DevDirectory,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct RetryArgs {
    /// The id of the job.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<JobId>,
    /// Retry all parked jobs, at most 10,000 at a time.
    #[arg(long)]
    all: bool,
    /// With --all: retry only jobs of this kind, such as `verify_upload`.
    #[arg(long, requires = "all", conflicts_with = "id")]
    kind: Option<String>,
    /// With --all: list the jobs that would be retried, and change nothing.
    #[arg(long, requires = "all", conflicts_with = "id")]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DevDirectory,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// Waits for its next attempt.
    Ready,
    /// Runs on a worker.
    Running,
    /// Has failed worker.attempts_max times and is retried only every worker.parked_retry_seconds.
    Parked,
}

/// The exit code if there is no such job, or if its state does not allow the command.
const REJECTED: u8 = 3;

/// Runs `strongroom jobs`. See [`EXIT_CODES`].
pub(super) async fn run_jobs(command: JobsCommand, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = command.data().load_config(config, Need::Database)?;
    config.validate_for_maintenance()?;
    let db = Database::open(&database_options(&config))?;
    let outcome = match command {
        JobsCommand::List(args) => {
            let states: &[JobState] = match args.state {
                None => &[],
                Some(State::Ready) => &[JobState::Ready],
                Some(State::Running) => &[JobState::Running],
                Some(State::Parked) => &[JobState::Parked],
            };
            let jobs = list_jobs(&db, states, args.limit).await?;
            print_text(&if args.json { serde_json::to_string_pretty(&jobs)? } else { table(&jobs)? })?;
            return Ok(ExitCode::SUCCESS);
        }
        JobsCommand::Show(args) => get_job(&db, args.id).await.map(|job| (job, args.json)),
        JobsCommand::Retry(RetryArgs { id: Some(id), json, .. }) => {
            retry_job(&db, id).await.map(|job| (job, json))
        }
        JobsCommand::Retry(args) => return retry_all(&db, &args).await,
        JobsCommand::Discard(args) => discard_job(&db, args.id).await.map(|job| (job, args.json)),
    };
    match outcome {
        Ok((job, json)) => {
            print_text(&if json { serde_json::to_string_pretty(&job)? } else { details(&job)? })?;
            Ok(ExitCode::SUCCESS)
        }
        Err(JobError::Failed(error)) => Err(error.into()),
        Err(error) => {
            super::report_error(&error);
            Ok(ExitCode::from(REJECTED))
        }
    }
}

/// Retries all parked jobs, and prints the result of each.
async fn retry_all(db: &Database, args: &RetryArgs) -> Result<ExitCode, Failure> {
    let report = retry_all_jobs(db, args.kind.as_deref(), args.dry_run).await?;
    print_text(&if args.json { serde_json::to_string_pretty(&report)? } else { describe(&report)? })?;
    Ok(if report.skipped.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(REJECTED) })
}

fn describe(report: &RetryReport) -> Result<String, Failure> {
    let mut text = table(&report.retried)?;
    for skipped in &report.skipped {
        writeln!(text, "{}: skipped: {}", skipped.job.id, skipped.reason)?;
    }
    let (count, skipped) = (report.retried.len(), report.skipped.len());
    match report.is_dry_run {
        true => writeln!(text, "{count} parked jobs would be retried (dry run: nothing was changed)")?,
        false => writeln!(text, "{count} jobs retried, {skipped} skipped")?,
    }
    if report.has_more {
        writeln!(text, "there may be more parked jobs; run the command again")?;
    }
    Ok(text)
}

fn table(jobs: &[JobSummary]) -> Result<String, Failure> {
    let mut table = format!(
        "{:<36}  {:<8} {:<24} {:>8}  {:<20}  {}\n",
        "ID", "STATE", "KIND", "ATTEMPTS", "NEXT ATTEMPT", "LAST ERROR"
    );
    for job in jobs {
        writeln!(
            table,
            "{:<36}  {:<8} {:<24} {:>8}  {:<20}  {}",
            job.id,
            job.state.as_str(),
            job.kind,
            job.attempts,
            job.run_time.format("%Y-%m-%dT%H:%M:%SZ"),
            job.last_error
        )?;
    }
    Ok(table)
}

fn details(job: &JobSummary) -> Result<String, Failure> {
    let mut text = String::new();
    for (name, value) in [
        ("id", job.id.clone()),
        ("tenant", job.tenant.clone()),
        ("kind", job.kind.clone()),
        ("state", job.state.to_string()),
        ("attempts", job.attempts.to_string()),
        ("waits", job.dependency_failures.to_string()),
        ("enqueued", job.enqueue_time.to_rfc3339()),
        ("next attempt", job.run_time.to_rfc3339()),
        ("lease expires", job.lease_expire_time.map_or_else(|| "-".to_owned(), |time| time.to_rfc3339())),
        ("last error", job.last_error.clone()),
        ("payload", job.payload.to_string()),
    ] {
        writeln!(text, "{name:<13} {value}")?;
    }
    Ok(text)
}
