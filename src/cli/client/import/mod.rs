//! `strongroom import`: imports existing objects and reports the file of each.

mod csv;
mod manifest;
mod report;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use clap::{ArgGroup, Args};
use futures::{StreamExt, stream};

use self::{manifest::Manifest, report::Report};
use super::{connection::ConnectionArgs, exit, failure::Failure, output::Output};
use crate::proto::v1::{ImportItem, ImportOptions, UploadSpec, import_item::Source};

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
#[command(group = ArgGroup::new("items").args(["keys", "prefixes", "urls", "manifest"]).required(true).multiple(true))]
pub(crate) struct ImportArgs {
    /// The name of the source, as configured on the server.
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// Import the object with this key; may be repeated.
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
    /// Import all objects whose keys start with this prefix, "" for all objects; may be repeated.
    #[arg(long = "prefix", value_name = "PREFIX")]
    pub prefixes: Vec<String>,
    /// Import the object at this URL; may be repeated.
    #[arg(long = "url", value_name = "URL")]
    pub urls: Vec<String>,
    /// Import the objects listed in this .csv or .jsonl file.
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// The category of objects without one in the manifest. Default: the default category of the tenant's
    /// policy.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub category: String,
    /// The owner of objects without one in the manifest. Default: the caller.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub owner: String,
    /// Report what would be imported, and import nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print the report as JSON, one message per line, followed by the summary.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Imports objects and prints the report while it arrives.
pub(super) async fn run_import(args: ImportArgs, output: Output) -> Result<(), Failure> {
    let listed = args.items();
    let manifest = args.manifest.clone().map(Manifest::open).transpose()?;
    // Validate the whole manifest first, so that an error in its last line is reported before anything is
    // imported.
    let rows = manifest.as_ref().map_or(Ok(0), Manifest::validate)?;
    let total = args.prefixes.is_empty().then_some(listed.len() as u64 + rows);
    let client = args.connection.connect().await?;
    let manifest_error: Arc<Mutex<Option<Failure>>> = Arc::default();
    let manifest_items = match &manifest {
        Some(manifest) => Some(manifest.items()?),
        None => None,
    };
    let (category, owner) = (args.category, args.owner);
    let items = listed.into_iter().map(Ok).chain(manifest_items.into_iter().flatten());
    let items = {
        let manifest_error = Arc::clone(&manifest_error);
        // Stop at the first invalid line: the manifest was changed after its validation.
        items.map_while(move |item| match item {
            Ok(item) => Some(apply_defaults(item, &category, &owner)),
            Err(failure) => {
                *manifest_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                None
            }
        })
    };
    let options = ImportOptions { source: args.source, dry_run: args.dry_run };
    let mut messages = client.import_files(options, stream::iter(items)).await?;
    let mut report = Report::new(output, total);
    while let Some(message) = messages.next().await {
        report.print_message(message?)?;
    }
    match manifest_error.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(failure) => Err(failure),
        None => report.finish(),
    }
}

impl ImportArgs {
    /// Returns the objects that are given as arguments.
    fn items(&self) -> Vec<ImportItem> {
        let keys = self.keys.iter().cloned().map(Source::ObjectKey);
        let prefixes = self.prefixes.iter().cloned().map(Source::ObjectPrefix);
        let urls = self.urls.iter().cloned().map(Source::Url);
        let item = |source| ImportItem { source: Some(source), ..ImportItem::default() };
        keys.chain(prefixes).chain(urls).map(item).collect()
    }
}

fn apply_defaults(mut item: ImportItem, category: &str, owner: &str) -> ImportItem {
    if item.owner_id.is_empty() {
        owner.clone_into(&mut item.owner_id);
    }
    let spec = item.spec.get_or_insert_with(UploadSpec::default);
    if spec.category.is_empty() {
        category.clone_into(&mut spec.category);
    }
    item
}
