//! `strongroom transfer-ownership`: the files of someone who leaves go to someone else.

use clap::Args;
use serde_json::json;

use super::{connection::ConnectionArgs, exit, failure::Failure, human, output::Output};
use crate::proto::v1::TransferOwnershipRequest;

/// Gives the files of one user of the tenant to another, those in the trash too. For admins. Going on after an
/// interruption is running it again.
#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct TransferArgs {
    /// Who has the files, by the id of the token
    #[arg(long, value_name = "USER")]
    pub from: String,
    /// Who gets them
    #[arg(long, value_name = "USER")]
    pub to: String,
    /// Only count
    #[arg(long)]
    pub dry_run: bool,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Where
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Repeats the call until nothing remains.
pub(super) async fn run(args: TransferArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let mut transferred = 0;
    let answer = loop {
        let answer = client
            .transfer_ownership(TransferOwnershipRequest {
                from_user_id: args.from.clone(),
                to_user_id: args.to.clone(),
                dry_run: args.dry_run,
                ..TransferOwnershipRequest::default()
            })
            .await?;
        transferred += answer.transferred_file_count;
        // A call that moved nothing will not move more; somebody uploads for the leaver all the while.
        if answer.remaining_file_count == 0 || answer.transferred_file_count == 0 {
            break answer;
        }
    };
    if output.json {
        return output.json(&json!({
            "transferred_file_count": transferred,
            "remaining_file_count": answer.remaining_file_count,
            "remaining_bytes": answer.remaining_bytes,
        }));
    }
    let (count, bytes) = (answer.remaining_file_count, human::size(answer.remaining_bytes));
    output.line(format_args!("{transferred} files transferred, {count} remain ({bytes})"))
}
