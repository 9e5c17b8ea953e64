//! `strongroom rm` and `strongroom undelete`: files into the trash, out of it, and away for good.

use clap::Args;
use serde_json::json;

use super::{
    connection::ConnectionArgs, exit, failure, failure::Failure, human, output::Output, records::FileRecord,
};
use crate::proto::v1::{DeleteFileRequest, File, PurgeFileRequest, UndeleteFileRequest};

/// Moves files to the trash, or removes them for good.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct RmArgs {
    /// The ids of the files
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Remove for good, past the trash. This cannot be undone
    #[arg(long)]
    pub purge: bool,
    /// Print the answers as JSON, one a line
    #[arg(long)]
    pub json: bool,
    /// Where
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Takes files out of the trash.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct UndeleteArgs {
    /// The ids of the files
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Print the answers as JSON, one a line
    #[arg(long)]
    pub json: bool,
    /// Where
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Deletes or purges one file after the other, going on after a failure.
pub(super) async fn rm(args: RmArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let several = args.ids.len() > 1;
    let remove = async |file_id: String| {
        let id = file_id.clone();
        let removed = if args.purge {
            let request = PurgeFileRequest { file_id, ..PurgeFileRequest::default() };
            client.purge_file(request).await.map(|_| None)
        } else {
            let request = DeleteFileRequest { file_id, ..DeleteFileRequest::default() };
            client.delete_file(request).await.map(|answer| answer.file)
        };
        match removed {
            Ok(file) => print(&id, file, "purged", output),
            Err(error) => Err(about(error.into(), &id, several)),
        }
    };
    failure::each(args.ids.clone(), remove, |failure| output.report(failure)).await
}

/// Takes one file after the other out of the trash, going on after a failure.
pub(super) async fn undelete(args: UndeleteArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let several = args.ids.len() > 1;
    let restore = async |file_id: String| {
        let request = UndeleteFileRequest { file_id: file_id.clone(), request_id: String::new() };
        match client.undelete_file(request).await {
            Ok(answer) => print(&file_id, answer.file, "restored", output),
            Err(error) => Err(about(error.into(), &file_id, several)),
        }
    };
    failure::each(args.ids, restore, |failure| output.report(failure)).await
}

fn about(failure: Failure, id: &str, several: bool) -> Failure {
    if several { failure.about(id) } else { failure }
}

/// `done` is what happened where the answer shows no file in the trash.
fn print(id: &str, file: Option<File>, done: &str, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&json!({ "file_id": id, "file": file.map(FileRecord::from) }));
    }
    match file.and_then(|file| file.purge_time) {
        Some(at) => output.line(format_args!("{id}  in the trash until {}", human::time_column(Some(&at)))),
        None => output.line(format_args!("{id}  {done}")),
    }
}
