//! `strongroom share`: links for visitors, and permissions for users, groups and the organization.

mod create;
mod records;
mod update;

use std::path::Path;

use clap::{Args, Subcommand};

pub(super) use self::records::record;
use self::records::{HEADING, print_row, print_share, print_share_with_token};
use super::{connection::ConnectionArgs, failure::Failure, output::Output};
use crate::proto::v1::{
    GetShareRequest, ListSharesRequest, RevokeShareRequest, RotateShareTokenRequest,
    list_shares_request::List,
};

/// The largest page that a call may request.
const PAGE_SIZE_MAX: i32 = 1_000;

const LS_HELP: &str = "Examples:
  strongroom share ls 0198…
  strongroom share ls --with-me
  strongroom share ls --mine --all --json

Exit codes: see strongroom get --help";
const SHOW_HELP: &str = "Examples:
  strongroom share show 0199…
  strongroom share show 0199… --json

Exit codes: see strongroom get --help";
const REVOKE_HELP: &str = "Examples:
  strongroom share revoke 0199…

Exit codes: see strongroom get --help";
const ROTATE_HELP: &str = "Examples:
  strongroom share rotate 0199…

Exit codes: see strongroom get --help";

#[derive(Debug, Subcommand)]
pub(crate) enum ShareCommand {
    /// Share a file, by default with a link for visitors.
    ///
    /// Prints the token of a link, which is not shown again.
    Create(Box<create::CreateArgs>),
    /// List the shares of a file, those that you created, or those that others share with you.
    Ls(ListArgs),
    /// Show a share.
    Show(ShowArgs),
    /// Change the terms of a share.
    Update(Box<update::UpdateArgs>),
    /// Revoke a share for good; recipients and visitors lose access at once.
    Revoke(RevokeArgs),
    /// Replace the token of a link; the former token ends at once.
    Rotate(RotateArgs),
}

#[derive(Debug, Args)]
#[command(after_help = LS_HELP)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub list: ListChoice,
    /// Include revoked and expired shares.
    #[arg(long)]
    pub all: bool,
    /// Print the shares as JSON, one per line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ListChoice {
    /// The id of a file, to list its shares.
    pub id: Option<String>,
    /// List the shares that you created.
    #[arg(long)]
    pub mine: bool,
    /// List the shares of which you are a recipient.
    #[arg(long)]
    pub with_me: bool,
}

#[derive(Debug, Args)]
#[command(after_help = SHOW_HELP)]
pub(crate) struct ShowArgs {
    /// The id of the share.
    pub id: String,
    /// Print the share as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = REVOKE_HELP)]
pub(crate) struct RevokeArgs {
    /// The id of the share.
    pub id: String,
    /// Print the share as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = ROTATE_HELP)]
pub(crate) struct RotateArgs {
    /// The id of the share.
    pub id: String,
    /// Print the share and its token as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

impl ShareCommand {
    pub(super) fn connection(&self) -> &ConnectionArgs {
        match self {
            Self::Create(args) => &args.connection,
            Self::Ls(args) => &args.connection,
            Self::Show(args) => &args.connection,
            Self::Update(args) => &args.connection,
            Self::Revoke(args) => &args.connection,
            Self::Rotate(args) => &args.connection,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        match self {
            Self::Create(args) => args.json,
            Self::Ls(args) => args.json,
            Self::Show(args) => args.json,
            Self::Update(args) => args.json,
            Self::Revoke(args) => args.json,
            Self::Rotate(args) => args.json,
        }
    }
}

pub(super) async fn run_share(command: ShareCommand, output: Output) -> Result<(), Failure> {
    match command {
        ShareCommand::Create(args) => create::create_share(*args, output).await,
        ShareCommand::Ls(args) => list_shares(args, output).await,
        ShareCommand::Show(args) => {
            let client = args.connection.connect().await?;
            let share = client.get_share(GetShareRequest { share_id: args.id }).await?.share;
            print_share(&share.unwrap_or_default(), output)
        }
        ShareCommand::Update(args) => update::update_share(*args, output).await,
        ShareCommand::Revoke(args) => {
            let client = args.connection.connect().await?;
            let request = RevokeShareRequest { share_id: args.id, request_id: String::new() };
            print_share(&client.revoke_share(request).await?.share.unwrap_or_default(), output)
        }
        ShareCommand::Rotate(args) => {
            let client = args.connection.connect().await?;
            let request = RotateShareTokenRequest { share_id: args.id, request_id: String::new() };
            let rotated = client.rotate_share_token(request).await?;
            print_share_with_token(&rotated.share.unwrap_or_default(), &rotated.token, output)
        }
    }
}

/// Prints each page as it arrives.
async fn list_shares(args: ListArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    if !output.json {
        output.line(HEADING)?;
    }
    let list = match args.list {
        ListChoice { id: Some(id), .. } => List::FileId(id),
        ListChoice { mine: true, .. } => List::CreatedByMe(true),
        ListChoice { .. } => List::SharedWithMe(true),
    };
    let mut request = ListSharesRequest {
        list: Some(list),
        show_closed: args.all,
        page_size: PAGE_SIZE_MAX,
        page_token: String::new(),
    };
    loop {
        let page = client.list_shares(request.clone()).await?;
        for share in &page.shares {
            print_row(share, output)?;
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

/// Reads a password from the first line of a file. An argument would be visible to other users of the machine.
async fn read_password(path: &Path) -> Result<String, Failure> {
    let action = format!("read the password from {}", path.display());
    let text = tokio::fs::read_to_string(path).await.map_err(Failure::local_io(action))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
