//! `strongroom rm` and `strongroom undelete`: delete, purge and undelete files.

use clap::Args;
use serde_json::json;

use super::{
    connection::ConnectionArgs, exit, failure, failure::Failure, human, output::Output, records::FileRecord,
};
use crate::proto::v1::{DeleteFileRequest, File, PurgeFileRequest, UndeleteFileRequest};

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct RmArgs {
    /// The ids of the files, as `strongroom ls` prints them.
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Purge the files with all their versions instead of moving them to the trash. This cannot be undone.
    #[arg(long)]
    pub purge: bool,
    /// Print the results as JSON, one document per line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct UndeleteArgs {
    /// The ids of the files, as `strongroom ls --deleted` prints them.
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Print the results as JSON, one document per line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Deletes or purges the files one after the other, and continues after an error.
pub(super) async fn run_rm(args: RmArgs, output: Output) -> Result<(), Failure> {
    failure::check_ids(&args.ids, "`strongroom ls` prints the ids of files")?;
    let client = args.connection.connect().await?;
    let has_several = args.ids.len() > 1;
    let remove = async |file_id: String| {
        let id = file_id.clone();
        let removed = if args.purge {
            let request = PurgeFileRequest { file_id, ..PurgeFileRequest::default() };
            client.purge_file(request).await.map(|_| None)
        } else {
            let request = DeleteFileRequest { file_id, ..DeleteFileRequest::default() };
            client.delete_file(request).await.map(|response| response.file)
        };
        match removed {
            Ok(file) => print_result(&id, file, "purged", output),
            Err(error) => Err(add_subject(error.into(), &id, has_several)),
        }
    };
    failure::run_for_each(args.ids.clone(), remove, |failure| output.report(failure)).await
}

/// Undeletes the files one after the other, and continues after an error.
pub(super) async fn run_undelete(args: UndeleteArgs, output: Output) -> Result<(), Failure> {
    failure::check_ids(&args.ids, "`strongroom ls --deleted` prints the ids of files in the trash")?;
    let client = args.connection.connect().await?;
    let has_several = args.ids.len() > 1;
    let restore = async |file_id: String| {
        let request = UndeleteFileRequest { file_id: file_id.clone(), request_id: String::new() };
        match client.undelete_file(request).await {
            Ok(response) => print_result(&file_id, response.file, "restored", output),
            Err(error) => Err(add_subject(error.into(), &file_id, has_several)),
        }
    };
    failure::run_for_each(args.ids, restore, |failure| output.report(failure)).await
}

fn add_subject(failure: Failure, id: &str, has_several: bool) -> Failure {
    if has_several { failure.with_subject(id) } else { failure }
}

/// Prints the id of the file and its purge time, or `outcome` if it is not in the trash.
fn print_result(id: &str, file: Option<File>, outcome: &str, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&json!({ "file_id": id, "file": file.map(FileRecord::from) }));
    }
    match file.and_then(|file| file.purge_time) {
        Some(at) => output.line(format_args!("{id}  in the trash until {}", human::time_column(Some(&at)))),
        None => output.line(format_args!("{id}  {outcome}")),
    }
}
