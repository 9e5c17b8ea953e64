//! `strongroom storage`: what operators do with the providers.

mod init;
mod move_blobs;
mod status;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Subcommand;

use super::{Failure, assemble::database_options};
use crate::{
    config::Config,
    db::{Database, DatabaseOptions},
};

/// Something was tried and did not work out: told apart from what could not be tried, which is 1.
const NOT_DONE: u8 = 3;

/// Sums over everything that is stored take longer than a request may.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(Debug, Subcommand)]
pub(super) enum StorageCommand {
    /// Make a provider ready for use: its bucket, its lifecycle rule
    Init(init::InitArgs),
    /// Show every provider: whether it answers, how fast, and what it holds
    Status(status::StatusArgs),
    /// Move files from one provider to another while the service runs; run it again until it says that 0 remain
    Move(move_blobs::MoveArgs),
}

pub(super) async fn storage(command: StorageCommand, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    match command {
        StorageCommand::Init(args) => init::init(args, config).await,
        StorageCommand::Status(args) => status::status(args, config).await,
        StorageCommand::Move(args) => move_blobs::move_blobs(args, config).await,
    }
}

fn open_database(config: &Config) -> Result<Database, Failure> {
    let options = DatabaseOptions { statement_timeout: STATEMENT_TIMEOUT, ..database_options(config) };
    Ok(Database::open(&options)?)
}
