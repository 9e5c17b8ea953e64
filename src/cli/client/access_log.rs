//! `strongroom access-log`: shows who read a file or used a share.

use chrono::{DateTime, FixedOffset};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{connection::ConnectionArgs, exit, failure::Failure, human, output::Output, records};
use crate::{
    client::Client,
    proto::v1::{
        AccessAction, AccessEntry, AccessFilter, AccessOutcome, ListFileAccessRequest, ListShareAccessRequest,
    },
};

/// The entries of one request. Larger pages need fewer requests.
const PAGE_SIZE: i32 = 500;

const EXAMPLES: &str = "Examples:
  strongroom access-log 01890a5d-ac96-774b-bcce-b302099a8057
  strongroom access-log --share 01890a5d-ac96-774b-bcce-b302099a8058 --outcome denied
  strongroom access-log 01890a5d-ac96-774b-bcce-b302099a8057 --from 2026-03-01 --json

";

#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}{}", exit::HELP))]
pub(crate) struct AccessLogArgs {
    /// The id of the file.
    #[arg(value_name = "FILE", required_unless_present = "share", conflicts_with = "share")]
    pub file: Option<String>,
    /// The id of a share, instead of a file.
    #[arg(long, value_name = "ID")]
    pub share: Option<String>,
    /// Show attempts since this time: a date or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = human::parse_time)]
    pub from: Option<DateTime<FixedOffset>>,
    /// Show attempts before this time: a date or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = human::parse_time)]
    pub to: Option<DateTime<FixedOffset>>,
    /// Show only this action.
    #[arg(long, value_enum)]
    pub action: Option<Action>,
    /// Show only attempts with this outcome.
    #[arg(long, value_enum)]
    pub outcome: Option<Outcome>,
    /// Print the entries as JSON, one per line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Action {
    Resolve,
    View,
    Download,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Outcome {
    Granted,
    Denied,
}

impl AccessLogArgs {
    fn filter(&self) -> AccessFilter {
        let action = match self.action {
            None => AccessAction::Unspecified,
            Some(Action::Resolve) => AccessAction::Resolve,
            Some(Action::View) => AccessAction::View,
            Some(Action::Download) => AccessAction::Download,
        };
        let outcome = match self.outcome {
            None => AccessOutcome::Unspecified,
            Some(Outcome::Granted) => AccessOutcome::Granted,
            Some(Outcome::Denied) => AccessOutcome::Denied,
        };
        AccessFilter {
            start_time: self.from.map(human::timestamp),
            end_time: self.to.map(human::timestamp),
            action: action.into(),
            outcome: outcome.into(),
        }
    }
}

/// A page of entries.
struct Page {
    entries: Vec<AccessEntry>,
    next_page_token: String,
}

async fn read_page(client: &Client, args: &AccessLogArgs, page_token: String) -> Result<Page, Failure> {
    let (filter, page_size) = (Some(args.filter()), PAGE_SIZE);
    if let Some(share_id) = args.share.clone() {
        let request = ListShareAccessRequest { share_id, filter, page_size, page_token };
        let page = client.list_share_access(request).await?;
        return Ok(Page { entries: page.entries, next_page_token: page.next_page_token });
    }
    let file_id = args.file.clone().unwrap_or_default();
    let request = ListFileAccessRequest { file_id, filter, page_size, page_token };
    let page = client.list_file_access(request).await?;
    Ok(Page { entries: page.entries, next_page_token: page.next_page_token })
}

pub(super) async fn run_access_log(args: AccessLogArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    if !output.json {
        output.line(format_args!(
            "{:<22}{:<10}{:<9}{:<20}{:<40}REASON OR USER AGENT",
            "TIME", "ACTION", "OUTCOME", "WHO", "ADDRESS"
        ))?;
    }
    let mut page_token = String::new();
    loop {
        let page = read_page(&client, &args, page_token).await?;
        for entry in &page.entries {
            print_entry(entry, output)?;
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        page_token = page.next_page_token;
    }
}

fn print_entry(entry: &AccessEntry, output: Output) -> Result<(), Failure> {
    let action = match entry.action() {
        AccessAction::Resolve => "resolve",
        AccessAction::View => "view",
        AccessAction::Download => "download",
        AccessAction::Unspecified => "unknown",
    };
    let outcome = match entry.outcome() {
        AccessOutcome::Granted => "granted",
        AccessOutcome::Denied => "denied",
        AccessOutcome::Unspecified => "unknown",
    };
    if output.json {
        return output.json(&json!({
            "access_time": records::time(entry.access_time.as_ref()),
            "file_id": entry.file_id,
            "version": entry.version,
            "share_id": entry.share_id,
            "actor_id": entry.actor_id,
            "address": entry.address,
            "user_agent": entry.user_agent,
            "action": action,
            "outcome": outcome,
            "denial_reason": entry.denial_reason,
            "purpose": entry.purpose,
            "call_id": entry.call_id,
        }));
    }
    let who = if entry.actor_id.is_empty() { "visitor" } else { &entry.actor_id };
    let remark = if entry.denial_reason.is_empty() { &entry.user_agent } else { &entry.denial_reason };
    output.line(format_args!(
        "{:<22}{action:<10}{outcome:<9}{:<20}{:<40}{}",
        human::time_column(entry.access_time.as_ref()),
        human::printable(who),
        human::printable(&entry.address),
        human::printable(remark),
    ))
}
