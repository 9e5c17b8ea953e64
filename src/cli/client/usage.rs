//! `strongroom usage`: shows what a tenant stores, its largest owners, and its history.

use clap::Args;

use super::{connection::ConnectionArgs, exit, failure::Failure, human, output::Output, quota, records};
use crate::{
    client::Client,
    proto::v1::{
        GetUsageHistoryRequest, GetUsageHistoryResponse, GetUsageRequest, ListTopOwnersRequest,
        ListTopOwnersResponse, UsageBreakdown,
    },
};

/// The page size of lists that are printed completely.
const PAGE_SIZE: i32 = 1_000;

const EXAMPLES: &str = "Examples:
  strongroom usage                   the usage by category, and its parts
  strongroom usage --owners          the users whose files take the most bytes
  strongroom usage --history --json  the samples of the last 400 days, for a script";

#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct UsageArgs {
    /// Show the owners with the most bytes instead.
    #[arg(long, conflicts_with = "history")]
    pub owners: bool,
    /// Show one sample a day, the growth, and the days until the quota is full instead.
    #[arg(long)]
    pub history: bool,
    /// The id of the tenant, for operators. Default: the caller's tenant.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub tenant: String,
    /// Print the result as JSON; with --owners or --history one document per page.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

pub(super) async fn run_usage(args: UsageArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    match (args.owners, args.history) {
        (true, _) => print_owners(&client, args.tenant, output).await,
        (false, true) => print_history(&client, args.tenant, output).await,
        (false, false) => {
            let usage = client.get_usage(GetUsageRequest { tenant_id: args.tenant }).await?;
            quota::print_usage(&usage, output)?;
            match &usage.breakdown {
                Some(breakdown) if !output.json => print_breakdown(breakdown, output),
                _ => Ok(()),
            }
        }
    }
}

fn print_breakdown(parts: &UsageBreakdown, output: Output) -> Result<(), Failure> {
    let row = |part: &str, count: i64, bytes: i64| {
        output.line(format_args!("{part:<20}  {count:>10}  {:>10}", human::size(bytes)))
    };
    output.line(format_args!("{:<20}  {:>10}  {:>10}", "PART", "COUNT", "TOTAL"))?;
    row("files", parts.file_count, parts.current_bytes)?;
    row("old versions", parts.old_version_count, parts.old_version_bytes)?;
    row("trash", parts.trash_file_count, parts.trash_bytes)?;
    output.line(format_args!(
        "measured {}; {} owners",
        human::time_column(parts.measure_time.as_ref()),
        parts.owner_count
    ))
}

async fn print_owners(client: &Client, tenant_id: String, output: Output) -> Result<(), Failure> {
    let mut request = ListTopOwnersRequest { tenant_id, page_size: PAGE_SIZE, page_token: String::new() };
    if !output.json {
        print_owner_row(["OWNER", "FILES", "TOTAL", "OLD VERSIONS", "TRASH"], output)?;
    }
    loop {
        let page = client.list_top_owners(request.clone()).await?;
        print_owner_page(&page, output)?;
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

fn print_owner_page(page: &ListTopOwnersResponse, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::top_owners(page));
    }
    for owner in &page.owners {
        print_owner_row(
            [
                &human::printable(&owner.owner_id),
                &owner.file_count.to_string(),
                &human::size(owner.total_bytes),
                &human::size(owner.old_version_bytes),
                &human::size(owner.trash_bytes),
            ],
            output,
        )?;
    }
    Ok(())
}

fn print_owner_row(columns: [&str; 5], output: Output) -> Result<(), Failure> {
    let [owner, files, total, old, trash] = columns;
    output.line(format_args!("{owner:<40}  {files:>10}  {total:>10}  {old:>12}  {trash:>10}"))
}

async fn print_history(client: &Client, tenant_id: String, output: Output) -> Result<(), Failure> {
    let mut request =
        GetUsageHistoryRequest { tenant_id, page_size: PAGE_SIZE, ..GetUsageHistoryRequest::default() };
    if !output.json {
        print_sample_row(["TIME", "USED", "LIMIT", "FILES", "OLD VERSIONS", "TRASH"], output)?;
    }
    loop {
        let page = client.get_usage_history(request.clone()).await?;
        print_history_page(&page, output)?;
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

fn print_history_page(page: &GetUsageHistoryResponse, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::usage_history(page));
    }
    for sample in &page.samples {
        print_sample_row(
            [
                &human::time_column(sample.sample_time.as_ref()),
                &human::size(sample.used_bytes),
                &human::size(sample.limit_bytes),
                &sample.file_count.to_string(),
                &human::size(sample.old_version_bytes),
                &human::size(sample.trash_bytes),
            ],
            output,
        )?;
    }
    // Only once, after the last page.
    let Some(growth) = page.growth_bytes_per_day.filter(|_| page.next_page_token.is_empty()) else {
        return Ok(());
    };
    let full = match page.days_until_full {
        Some(days) => format!("full in {days} days"),
        None => "no growth".to_owned(),
    };
    let sign = if growth < 0 { "-" } else { "" };
    output.line(format_args!(
        "{sign}{} a day in the last 30 days; {full}",
        human::size(growth.saturating_abs())
    ))
}

fn print_sample_row(columns: [&str; 6], output: Output) -> Result<(), Failure> {
    let [time, used, limit, files, old, trash] = columns;
    output.line(format_args!("{time:<20}  {used:>10}  {limit:>10}  {files:>10}  {old:>12}  {trash:>10}"))
}
