//! `strongroom migrate up|down|status`.

use std::{fmt::Write as _, path::PathBuf};

use clap::Subcommand;
use secrecy::SecretString;

use super::{Failure, load, print};
use crate::db::migrate::{self, Server};

/// What to do with the migrations.
#[derive(Debug, Subcommand)]
pub(super) enum MigrateCommand {
    /// Create the roles and apply what is pending
    Up,
    /// Revert the newest migration
    Down,
    /// List the migrations and whether each is applied
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn migrate(command: MigrateCommand, config: Option<PathBuf>) -> Result<(), Failure> {
    let config = load(config)?;
    config.validate_for_migrate()?;
    let url: SecretString = config.database.migrate_url.clone().unwrap_or_default();
    let server = Server { url: &url, tls_ca_file: config.database.tls_ca_file.as_deref() };
    match command {
        MigrateCommand::Up => match migrate::up(server).await?.as_slice() {
            [] => print("nothing to apply"),
            applied => print(&format!("applied {}", applied.join(", "))),
        },
        MigrateCommand::Down => match migrate::down(server).await? {
            Some(reverted) => print(&format!("reverted {reverted}")),
            None => print("nothing to revert"),
        },
        MigrateCommand::Status { json } => status(server, json).await,
    }
}

async fn status(server: Server<'_>, json: bool) -> Result<(), Failure> {
    let migrations = migrate::status(server).await?;
    if json {
        let rows: Vec<_> = migrations
            .iter()
            .map(|one| serde_json::json!({ "name": one.name, "is_applied": one.is_applied }))
            .collect();
        return print(&serde_json::to_string_pretty(&rows)?);
    }
    let mut table = String::new();
    for one in migrations {
        let state = if one.is_applied { "applied" } else { "pending" };
        writeln!(table, "{state}  {}", one.name)?;
    }
    print(&table)
}
