//! `strongroom versions`: lists, restores and deletes the versions of a file.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    connection::ConnectionArgs,
    exit,
    failure::Failure,
    human,
    output::Output,
    records::{self, FileRecord},
};
use crate::proto::v1::{
    DeleteFileVersionRequest, File, FileVersion, ListFileVersionsRequest, QuotaState,
    RestoreFileVersionRequest,
};

#[derive(Debug, Subcommand)]
pub(crate) enum VersionsCommand {
    /// List the versions of a file, newest first.
    Ls(ListArgs),
    /// Restore an earlier version as a new current version.
    Restore(RestoreArgs),
    /// Delete a version permanently.
    Rm(DeleteArgs),
}

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct ListArgs {
    /// The id of the file.
    pub id: String,
    /// Print the versions as JSON, one per line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct RestoreArgs {
    /// The id of the file.
    pub id: String,
    /// The number of the version.
    pub version: i32,
    /// A one-line description of the change.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub change_description: String,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct DeleteArgs {
    /// The id of the file.
    pub id: String,
    /// The number of the version; the current version cannot be deleted.
    pub version: i32,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

impl VersionsCommand {
    pub(super) fn connection(&self) -> &ConnectionArgs {
        match self {
            Self::Ls(args) => &args.connection,
            Self::Restore(args) => &args.connection,
            Self::Rm(args) => &args.connection,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        match self {
            Self::Ls(args) => args.json,
            Self::Restore(args) => args.json,
            Self::Rm(args) => args.json,
        }
    }
}

pub(super) async fn run_versions(command: VersionsCommand, output: Output) -> Result<(), Failure> {
    match command {
        VersionsCommand::Ls(args) => list_versions(args, output).await,
        VersionsCommand::Restore(args) => restore_version(args, output).await,
        VersionsCommand::Rm(args) => delete_version(args, output).await,
    }
}

async fn list_versions(args: ListArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    if !output.json {
        output.line(VERSIONS_HEADING)?;
    }
    let mut request = ListFileVersionsRequest { file_id: args.id, ..ListFileVersionsRequest::default() };
    loop {
        let page = client.list_file_versions(request.clone()).await?;
        for version in &page.versions {
            print_version(version, output)?;
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

async fn restore_version(args: RestoreArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let request = RestoreFileVersionRequest {
        file_id: args.id,
        version: args.version,
        change_description: args.change_description,
        ..RestoreFileVersionRequest::default()
    };
    let response = client.restore_file_version(request).await?;
    print_file(response.file, response.quota_state, "is the restored current version", output)
}

async fn delete_version(args: DeleteArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let request = DeleteFileVersionRequest {
        file_id: args.id,
        version: args.version,
        ..DeleteFileVersionRequest::default()
    };
    let response = client.delete_file_version(request).await?;
    print_file(response.file, response.quota_state, "is still the current version", output)
}

/// The heading of the columns that [`print_version`] prints. The current version has an asterisk.
const VERSIONS_HEADING: &str = "VERSION       SIZE  CREATED               STATE        CHANGE";

fn print_version(version: &FileVersion, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::version(version));
    }
    let state = version.state().as_str_name();
    let state = state.strip_prefix("FILE_STATE_").unwrap_or(state).to_lowercase();
    output.line(format_args!(
        "{:>5} {} {:>10}  {:<20}  {:<11}  {}",
        version.version,
        if version.is_current { "*" } else { " " },
        human::size(version.size_bytes),
        human::time_column(version.create_time.as_ref()),
        state,
        human::printable(&version.change_description),
    ))
}

fn print_file(
    file: Option<File>,
    quota: Option<QuotaState>,
    outcome: &str,
    output: Output,
) -> Result<(), Failure> {
    if output.json {
        let quota = quota.as_ref().map(records::quota_state);
        return output.json(&json!({ "file": file.map(FileRecord::from), "quota_state": quota }));
    }
    let file = file.unwrap_or_default();
    output.line(format_args!("{}  version {} {outcome}", file.id, file.version))
}
