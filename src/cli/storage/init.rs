//! `strongroom storage init`.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

use super::super::{Failure, ambient, load, print, providers};
use crate::{
    app::storage::init::{Initialised, initialise},
    storage::InitOutcome,
};

/// What to make ready.
#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    /// The provider, a name of `storage.providers`; the one that new bytes go to when it is not given
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Needs no database: a store can be made ready before there is one.
pub(super) async fn init(args: InitArgs, config: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = load(config)?;
    let (clock, ids) = ambient();
    let stores = providers::open_stores(&config.storage, &clock, &ids)?;
    let name = args.provider.unwrap_or(config.storage.provider.clone());
    let options = providers::init_options(&config.storage, &name);
    let done = initialise(stores.of(&name)?.as_ref(), &options).await?;
    print(&if args.json { serde_json::to_string_pretty(&done)? } else { table(&done)? })?;
    Ok(ExitCode::SUCCESS)
}

fn table(done: &Initialised) -> Result<String, Failure> {
    let mut table = String::new();
    for step in &done.steps {
        let outcome = match &step.outcome {
            InitOutcome::Done => "done".to_owned(),
            InitOutcome::AlreadyThere => "was there".to_owned(),
            InitOutcome::Unsupported(why) => format!("not supported: {why}"),
        };
        writeln!(table, "{}: {}: {outcome}", done.provider, step.subject)?;
    }
    Ok(table)
}
