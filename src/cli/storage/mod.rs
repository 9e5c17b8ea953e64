//! `strongroom storage`: initializes storage providers, shows their status, takes stores over, and moves
//! files between them.

mod adopt;
mod init;
mod move_blobs;
mod status;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Subcommand;

use super::{Failure, assemble::database_options, system_ids};
use crate::{
    app::owner::{OwnerParts, StoreOwners},
    config::Config,
    db::{Database, DatabaseOptions},
    domain::clock::Clock,
    storage::Stores,
};

/// The exit code if the command ran but its result is incomplete.
const INCOMPLETE: u8 = 3;

/// Aggregates over all blobs may exceed the statement timeout for requests.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(Debug, Subcommand)]
pub(super) enum StorageCommand {
    /// Make the configured database the owner of a store, which its former owner can then only read.
    Adopt(adopt::AdoptArgs),
    /// Initialize a provider: create its bucket and lifecycle rule if they do not exist.
    Init(init::InitArgs),
    /// Show the reachability, latency and usage of every provider.
    Status(status::StatusArgs),
    /// Move files from one provider to another while the service runs; repeat until 0 files and uploads
    /// remain.
    Move(move_blobs::MoveArgs),
}

pub(super) async fn run_storage(
    command: StorageCommand,
    config: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    match command {
        StorageCommand::Adopt(args) => adopt::run_adopt(args, config).await,
        StorageCommand::Init(args) => init::run_init(args, config).await,
        StorageCommand::Status(args) => status::run_status(args, config).await,
        StorageCommand::Move(args) => move_blobs::run_move(args, config).await,
    }
}

fn open_database(config: &Config) -> Result<Database, Failure> {
    let options = DatabaseOptions { statement_timeout: STATEMENT_TIMEOUT, ..database_options(config) };
    Ok(Database::open(&options)?)
}

/// Creates the checks that the stores belong to the database.
fn open_owners(config: &Config, db: &Database, stores: &Stores, clock: &Arc<dyn Clock>) -> StoreOwners {
    StoreOwners::new(OwnerParts {
        db: db.clone(),
        stores: stores.clone(),
        clock: Arc::clone(clock),
        ids: system_ids(),
        metrics: None,
        limits: config.storage.owner_limits(),
        key_prefix: config.storage.key_prefix.clone(),
    })
}
