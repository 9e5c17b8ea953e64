//! `strongroom transfer-ownership`: transfers all files of a user to another user.

use clap::Args;
use serde_json::json;

use super::{connection::ConnectionArgs, exit, failure::Failure, human, output::Output};
use crate::proto::v1::TransferOwnershipRequest;

#[derive(Debug, Args)]
#[command(after_help = exit::HELP)]
pub(crate) struct TransferArgs {
    /// The id of the current owner: the subject of a user's token, or `service:` and that of a service's.
    #[arg(long, value_name = "USER")]
    pub from: String,
    /// The id of the new owner.
    #[arg(long, value_name = "USER")]
    pub to: String,
    /// Count the files, and transfer none.
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Repeats the call until no file remains.
pub(super) async fn run_transfer_ownership(args: TransferArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    let mut transferred = 0;
    let response = loop {
        let response = client
            .transfer_ownership(TransferOwnershipRequest {
                from_user_id: args.from.clone(),
                to_user_id: args.to.clone(),
                dry_run: args.dry_run,
                ..TransferOwnershipRequest::default()
            })
            .await?;
        transferred += response.transferred_file_count;
        // If a call transferred nothing, another one would not either. The rest are files uploaded in the
        // meantime.
        if response.remaining_file_count == 0 || response.transferred_file_count == 0 {
            break response;
        }
    };
    if output.json {
        return output.json(&json!({
            "transferred_file_count": transferred,
            "remaining_file_count": response.remaining_file_count,
            "remaining_bytes": response.remaining_bytes,
        }));
    }
    let (count, bytes) = (response.remaining_file_count, human::size(response.remaining_bytes));
    output.line(format_args!("{transferred} files transferred, {count} remain ({bytes})"))
}
