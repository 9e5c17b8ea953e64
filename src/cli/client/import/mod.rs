//! `strongroom import`: takes over files of before, and tells which file each became.

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

/// Takes over files of before from a source that the server's operator has named: a directory, a bucket, or hosts whose URLs may
/// be fetched. For admins of a tenant. Run it again after any failure: nothing becomes two files, and what is done is answered
/// with the file that it is. Exits with 1 when an item failed.
///
/// Prints a line for each object: what became of it (imported, already, would be, failed), the id of its file, its old key or URL.
///
/// A manifest is a CSV file, whose first line names its columns, or one JSON object a line (.jsonl): key or url, and where they
/// are known legacy_id, owner, category, create_time (RFC 3339) and entity (type:id or type:id:field).
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
#[command(group = ArgGroup::new("what").args(["keys", "prefixes", "urls", "manifest"]).required(true).multiple(true))]
pub(crate) struct ImportArgs {
    /// The name of the source
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// The key of an object; may be repeated
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
    /// What the keys of objects begin with, "" for all; may be repeated
    #[arg(long = "prefix", value_name = "PREFIX")]
    pub prefixes: Vec<String>,
    /// A URL; may be repeated
    #[arg(long = "url", value_name = "URL")]
    pub urls: Vec<String>,
    /// A file that names objects and what is known of each, .csv or .jsonl
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// The category of what has none in the manifest; without it the default of the tenant's policy
    #[arg(long, default_value = "", hide_default_value = true)]
    pub category: String,
    /// The owner of what has none in the manifest; without it the caller
    #[arg(long, default_value = "", hide_default_value = true)]
    pub owner: String,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the report as JSON, one message a line, the summary last
    #[arg(long)]
    pub json: bool,
    /// Where
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Imports, and prints the report as it comes.
pub(super) async fn run(args: ImportArgs, output: Output) -> Result<(), Failure> {
    let named = args.named();
    let manifest = args.manifest.clone().map(Manifest::open).transpose()?;
    // All of it is read once before anything is done, so that a typing error in its last line is told first.
    let rows = manifest.as_ref().map_or(Ok(0), Manifest::check)?;
    let total = args.prefixes.is_empty().then_some(named.len() as u64 + rows);
    let client = args.connection.connect().await?;
    let broken: Arc<Mutex<Option<Failure>>> = Arc::default();
    let of_manifest = match &manifest {
        Some(manifest) => Some(manifest.items()?),
        None => None,
    };
    let (category, owner) = (args.category, args.owner);
    let items = named.into_iter().map(Ok).chain(of_manifest.into_iter().flatten());
    let items = {
        let broken = Arc::clone(&broken);
        // Ends where the manifest is not any more what it was.
        items.map_while(move |item| match item {
            Ok(item) => Some(with_defaults(item, &category, &owner)),
            Err(failure) => {
                *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                None
            }
        })
    };
    let options = ImportOptions { source: args.source, dry_run: args.dry_run };
    let mut answers = client.import_files(options, stream::iter(items)).await?;
    let mut report = Report::new(output, total);
    while let Some(answer) = answers.next().await {
        report.take(answer?)?;
    }
    match broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(failure) => Err(failure),
        None => report.end(),
    }
}

impl ImportArgs {
    /// What the command line itself names.
    fn named(&self) -> Vec<ImportItem> {
        let keys = self.keys.iter().cloned().map(Source::ObjectKey);
        let prefixes = self.prefixes.iter().cloned().map(Source::ObjectPrefix);
        let urls = self.urls.iter().cloned().map(Source::Url);
        let item = |source| ImportItem { source: Some(source), ..ImportItem::default() };
        keys.chain(prefixes).chain(urls).map(item).collect()
    }
}

fn with_defaults(mut item: ImportItem, category: &str, owner: &str) -> ImportItem {
    if item.owner_id.is_empty() {
        owner.clone_into(&mut item.owner_id);
    }
    let spec = item.spec.get_or_insert_with(UploadSpec::default);
    if spec.category.is_empty() {
        category.clone_into(&mut spec.category);
    }
    item
}
