//! `strongroom storage adopt`: makes the configured database the owner of its stores.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    super::{
        Failure,
        confirmation::is_confirmed,
        database_clock,
        dev::attach::{DevDirectory, Need},
        print_text,
        providers::open_stores,
        selection::ProviderSelection,
        system_ids,
    },
    INCOMPLETE, open_database, open_owners,
};
use crate::{app::owner::OwnerReport, domain::store_owner::OwnerMarker};

const EXIT_CODES: &str = "Exit codes:
  0  the stores belong to the configured database
  1  a store could not be taken over
  2  usage error
  3  the takeover of a store was not confirmed; that store was not changed";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(in crate::cli) struct AdoptArgs {
    #[command(flatten)]
    selection: ProviderSelection,
    /// Take the stores over without asking. A former owner can then only read.
    #[arg(long)]
    yes: bool,
    /// Print the result of each store as JSON. Requires --yes.
    #[arg(long, requires = "yes")]
    json: bool,
    #[command(flatten)]
    data: DevDirectory,
}

/// The result for one store.
#[derive(Debug, serde::Serialize)]
struct AdoptResult {
    provider: String,
    /// Whether the owner changed. If false, the store belonged to this database already.
    is_adopted: bool,
    /// The marker before the command.
    former_owner: Option<OwnerMarker>,
    /// The marker after the command.
    owner: Option<OwnerMarker>,
}

/// Runs `strongroom storage adopt`. See [`EXIT_CODES`].
pub(super) async fn run_adopt(args: AdoptArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = args.data.load_config(config, Need::DatabaseAndObjects)?;
    config.validate_for_maintenance()?;
    let database = open_database(&config)?;
    let (clock, ids) = (database_clock(&database).await?, system_ids());
    let stores = open_stores(&config.storage, &clock, &ids)?;
    let owners = open_owners(&config, &database, &stores, &clock);
    let (mut results, mut is_complete) = (Vec::new(), true);
    for provider in stores.select_providers(args.selection.provider.as_deref()) {
        let found = owners.inspect_owner(&provider).await?;
        let result = if found.is_owner {
            AdoptResult { provider, is_adopted: false, former_owner: found.owner.clone(), owner: found.owner }
        } else if args.yes || is_confirmed(&describe(&found)?, "take the store over")? {
            let owner = Some(owners.adopt_store(&provider).await?);
            AdoptResult { provider, is_adopted: true, former_owner: found.owner, owner }
        } else {
            is_complete = false;
            continue;
        };
        if !args.json {
            print_text(&table(&result)?)?;
        }
        results.push(result);
    }
    if args.json {
        print_text(&serde_json::to_string_pretty(&results)?)?;
    }
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

/// Describes the owner of a store, and the effect of the command.
fn describe(found: &OwnerReport) -> Result<String, Failure> {
    let mut text = String::new();
    write_owner(&mut text, "owner", found.owner.as_ref())?;
    if let Some(mismatch) = found.mismatch {
        writeln!(text, "{:<13} {mismatch}", "mismatch")?;
    }
    writeln!(
        text,
        "{:<13} installation {}, incarnation {}",
        "this database", found.database.installation_id, found.database.incarnation
    )?;
    writeln!(
        text,
        "If another database still uses this store, it can then only read, and this one deletes the objects that its \
         rows do not need any more."
    )?;
    write!(text, "Take over the store `{}`? [y/N] ", found.provider)?;
    Ok(text)
}

fn write_owner(text: &mut String, label: &str, owner: Option<&OwnerMarker>) -> Result<(), Failure> {
    match owner {
        Some(owner) => writeln!(
            text,
            "{label:<13} installation {}, incarnation {}, epoch {}, last wrote {}",
            owner.database.installation_id,
            owner.database.incarnation,
            owner.beat.epoch,
            owner.write_time.to_rfc3339()
        )?,
        None => writeln!(text, "{label:<13} no readable owner marker")?,
    }
    Ok(())
}

fn table(result: &AdoptResult) -> Result<String, Failure> {
    let mut text = String::new();
    if result.is_adopted {
        write_owner(&mut text, "former owner", result.former_owner.as_ref())?;
        write_owner(&mut text, "owner", result.owner.as_ref())?;
        writeln!(text, "the store `{}` belongs to this database", result.provider)?;
    } else {
        write_owner(&mut text, "owner", result.owner.as_ref())?;
        writeln!(text, "the store `{}` belonged to this database already", result.provider)?;
    }
    Ok(text)
}
