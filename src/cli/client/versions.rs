//! `strongroom versions`: the contents a file has had.

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

/// What to do with versions. A new one comes by `strongroom put --file-id`.
#[derive(Debug, Subcommand)]
pub(crate) enum VersionsCommand {
    /// List the versions of a file, newest first
    Ls(ListArgs),
    /// Make an earlier version current again, as a new one
    Restore(RestoreArgs),
    /// Remove one version for good
    Rm(RemoveArgs),
}

/// Whose versions.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct ListArgs {
    /// The id of the file
    pub id: String,
    /// Print the versions as JSON, one a line
    #[arg(long)]
    pub json: bool,
    /// Where
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Which version to restore.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct RestoreArgs {
    /// The id of the file
    pub id: String,
    /// The number of the version
    pub version: i32,
    /// Why, in one line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub change_description: String,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Where
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Which version to remove.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct RemoveArgs {
    /// The id of the file
    pub id: String,
    /// The number of the version; the current one cannot be removed
    pub version: i32,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Where
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

impl VersionsCommand {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Ls(args) => args.json,
            Self::Restore(args) => args.json,
            Self::Rm(args) => args.json,
        }
    }
}

/// Does it.
pub(super) async fn run(command: VersionsCommand, output: Output) -> Result<(), Failure> {
    match command {
        VersionsCommand::Ls(args) => list(args, output).await,
        VersionsCommand::Restore(args) => restore(args, output).await,
        VersionsCommand::Rm(args) => remove(args, output).await,
    }
}

async fn list(args: ListArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
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

async fn restore(args: RestoreArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let request = RestoreFileVersionRequest {
        file_id: args.id,
        version: args.version,
        change_description: args.change_description,
        ..RestoreFileVersionRequest::default()
    };
    let answer = client.restore_file_version(request).await?;
    print_file(answer.file, answer.quota_state, "is current, restored", output)
}

async fn remove(args: RemoveArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let request = DeleteFileVersionRequest {
        file_id: args.id,
        version: args.version,
        ..DeleteFileVersionRequest::default()
    };
    let answer = client.delete_file_version(request).await?;
    print_file(answer.file, answer.quota_state, "stays current", output)
}

fn print_version(version: &FileVersion, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::version(version));
    }
    let state = version.state().as_str_name();
    let state = state.strip_prefix("FILE_STATE_").unwrap_or(state).to_lowercase();
    output.line(format_args!(
        "{:>5} {} {:>10}  {}  {:<11}  {}",
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
    done: &str,
    output: Output,
) -> Result<(), Failure> {
    if output.json {
        let quota = quota.as_ref().map(records::quota_state);
        return output.json(&json!({ "file": file.map(FileRecord::from), "quota_state": quota }));
    }
    let file = file.unwrap_or_default();
    output.line(format_args!("{}  version {} {done}", file.id, file.version))
}
