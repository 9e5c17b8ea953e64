//! `strongroom storage init`: creates the bucket and lifecycle rule of a storage provider.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

use super::super::{
    Failure,
    dev::attach::{DevDirectory, Need},
    print_text, providers, system_clock_and_ids,
};
use crate::{
    app::storage::init::{InitializedProvider, initialize_provider},
    storage::InitOutcome,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    /// The provider, as named in `storage.providers`. Default: `storage.provider`.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DevDirectory,
}

/// Runs `strongroom storage init`. It needs no database, so a store can be initialized before the database
/// exists.
pub(super) async fn run_init(args: InitArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = args.data.load_config(config, Need::DatabaseAndObjects)?;
    let (clock, ids) = system_clock_and_ids();
    let stores = providers::open_stores(&config.storage, &clock, &ids)?;
    let name = args.provider.unwrap_or(config.storage.provider.clone());
    let options = providers::init_options(&config.storage, &name);
    let done = initialize_provider(stores.get(&name)?.as_ref(), &options).await?;
    print_text(&if args.json { serde_json::to_string_pretty(&done)? } else { table(&done)? })?;
    Ok(ExitCode::SUCCESS)
}

fn table(done: &InitializedProvider) -> Result<String, Failure> {
    let mut table = String::new();
    for step in &done.steps {
        let outcome = match &step.outcome {
            InitOutcome::Done => "done".to_owned(),
            InitOutcome::AlreadyExists => "already exists".to_owned(),
            InitOutcome::Noted(effect) => effect.clone(),
            InitOutcome::Unsupported(reason) => format!("not supported: {reason}"),
        };
        writeln!(table, "{}: {}: {outcome}", done.provider, step.subject)?;
    }
    Ok(table)
}
