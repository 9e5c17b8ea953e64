//! `strongroom jobs`: what operators see of the queue, and what they may do with a job.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};

use super::{Failure, assemble::database_options, load, print};
use crate::{
    app::jobs::{JobError, JobReport, discard::discard, list::list, retry::retry, show::show},
    db::{Database, jobs::JobState},
    domain::ids::JobId,
};

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// List the jobs that are ready, running or parked, those that wait longest first
    List(ListArgs),
    /// Show one job, and why its last attempt failed
    Show(JobArgs),
    /// Give a parked job all its attempts again, from now on
    Retry(JobArgs),
    /// Throw away a job that no worker has
    Discard(JobArgs),
}

/// Which jobs to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only those in this state
    #[arg(long, value_enum)]
    state: Option<State>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which job.
#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// Its id
    id: JobId,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// Waits for its time and for a worker
    Ready,
    /// A worker has it
    Running,
    /// Failed too often
    Parked,
}

/// It could be tried, and was not possible: there is no such job, or it stands otherwise.
const NOT_DONE: u8 = 3;

/// Exits with 0 when it was done, 3 when there is no such job or it stands otherwise, 1 when it could not be tried.
pub(super) async fn jobs(command: JobsCommand, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = load(config)?;
    config.validate_for_upkeep()?;
    let db = Database::open(&database_options(&config))?;
    let outcome = match command {
        JobsCommand::List(args) => {
            let states: &[JobState] = match args.state {
                None => &[],
                Some(State::Ready) => &[JobState::Ready],
                Some(State::Running) => &[JobState::Running],
                Some(State::Parked) => &[JobState::Parked],
            };
            let jobs = list(&db, states, args.limit).await?;
            print(&if args.json { serde_json::to_string_pretty(&jobs)? } else { table(&jobs)? })?;
            return Ok(ExitCode::SUCCESS);
        }
        JobsCommand::Show(args) => show(&db, args.id).await.map(|job| (job, args.json)),
        JobsCommand::Retry(args) => retry(&db, args.id).await.map(|job| (job, args.json)),
        JobsCommand::Discard(args) => discard(&db, args.id).await.map(|job| (job, args.json)),
    };
    match outcome {
        Ok((job, json)) => {
            print(&if json { serde_json::to_string_pretty(&job)? } else { details(&job)? })?;
            Ok(ExitCode::SUCCESS)
        }
        Err(JobError::Failed(error)) => Err(error.into()),
        Err(refused) => {
            super::report(&refused);
            Ok(ExitCode::from(NOT_DONE))
        }
    }
}

fn table(jobs: &[JobReport]) -> Result<String, Failure> {
    let mut table = format!(
        "{:<36}  {:<8} {:<24} {:>8}  {:<20}  {}\n",
        "ID", "STATE", "KIND", "ATTEMPTS", "NEXT", "LAST ERROR"
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

fn details(job: &JobReport) -> Result<String, Failure> {
    let mut text = String::new();
    for (name, value) in [
        ("id", job.id.clone()),
        ("tenant", job.tenant.clone()),
        ("kind", job.kind.clone()),
        ("state", job.state.to_string()),
        ("attempts", job.attempts.to_string()),
        ("enqueued", job.enqueue_time.to_rfc3339()),
        ("next attempt", job.run_time.to_rfc3339()),
        ("lease until", job.lease_expire_time.map_or_else(|| "-".to_owned(), |time| time.to_rfc3339())),
        ("last error", job.last_error.clone()),
        ("payload", job.payload.to_string()),
    ] {
        writeln!(text, "{name:<13} {value}")?;
    }
    Ok(text)
}
