//! `strongroom migrate`: applies, reverts and lists database migrations.

use std::{fmt::Write as _, path::PathBuf};

use clap::Subcommand;
use secrecy::SecretString;

use super::{Failure, load_config, print_text};
use crate::db::migrate::{self, MigrationReport, MigrationTarget};

#[derive(Debug, Subcommand)]
pub(super) enum MigrateCommand {
    /// Create the database roles, apply all pending migrations, and create or replace all functions.
    Up,
    /// Revert the most recently applied migration.
    Down,
    /// List the migrations, and whether each is applied or pending.
    Status {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run_migrate(command: MigrateCommand, config: Option<PathBuf>) -> Result<(), Failure> {
    let config = load_config(config)?;
    config.validate_for_migrate()?;
    let url: SecretString = config.database.migrate_url.clone().unwrap_or_default();
    let server = MigrationTarget {
        url: &url,
        tls_ca_file: config.database.tls_ca_file.as_deref(),
        allow_plaintext: config.database.allow_plaintext,
    };
    match command {
        MigrateCommand::Up => print_report(&migrate::up(server).await?),
        MigrateCommand::Down => match migrate::down(server).await? {
            Some(reverted) => print_text(&format!("reverted {reverted}")),
            None => print_text("no applied migrations"),
        },
        MigrateCommand::Status { json } => print_status(server, json).await,
    }
}

fn print_report(report: &MigrationReport) -> Result<(), Failure> {
    match report.applied.as_slice() {
        [] => print_text("no pending migrations")?,
        applied => print_text(&format!("applied {}", applied.join(", ")))?,
    }
    if report.is_database_newer {
        print_text("a newer version has migrated this database; its functions were left unchanged")?;
    }
    Ok(())
}

async fn print_status(server: MigrationTarget<'_>, json: bool) -> Result<(), Failure> {
    let migrations = migrate::status(server).await?;
    if json {
        let rows: Vec<_> = migrations
            .iter()
            .map(
                |migration| serde_json::json!({ "name": migration.name, "is_applied": migration.is_applied }),
            )
            .collect();
        return print_text(&serde_json::to_string_pretty(&rows)?);
    }
    let mut table = String::new();
    for migration in migrations {
        let state = if migration.is_applied { "applied" } else { "pending" };
        writeln!(table, "{state}  {}", migration.name)?;
    }
    print_text(&table)
}
