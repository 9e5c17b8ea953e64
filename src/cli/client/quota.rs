//! `strongroom quota`: shows a tenant's quota and usage, checks whether uploads fit, or sets limits.

mod alerts;
mod check;
mod recalculation;
mod users;

pub(super) use self::users::user_record;

use clap::Args;
use prost_types::FieldMask;

use super::{connection::ConnectionArgs, exit, failure::Failure, human, output::Output, records};
use crate::{
    client::Client,
    proto::v1::{GetQuotaRequest, GetUsageRequest, GetUsageResponse, Quota, UpdateQuotaRequest},
};

/// The examples as shown by `--help`, before the exit codes.
const EXAMPLES: &str = "Examples:
  strongroom quota --usage
  strongroom quota --set-limit 10GiB
  strongroom quota --check 20MiB 1500MB --type video/mp4
  strongroom quota --alerts --json
  strongroom quota --user alice --set-limit 5GiB --set-files 1000
  strongroom quota --user alice --remove-limit
  strongroom quota --users
  strongroom quota --set-alert-emails ops@example.org,finance@example.org";

#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct QuotaArgs {
    /// Show the usage by category and media kind.
    #[arg(long, conflicts_with_all = ["set_limit", "set_files", "set_alert_emails", "check"])]
    pub usage: bool,
    /// List the alerts, newest first; for tenant admins and operators.
    #[arg(long, conflicts_with_all = ["set_limit", "set_files", "set_alert_emails", "check", "usage"])]
    pub alerts: bool,
    /// Show or set the quota of a user instead: the subject of a user's token, or `service:` and that of a service's.
    /// Admins and operators set limits with --set-limit, --remove-limit and --set-files.
    #[arg(long, value_name = "USER", conflicts_with_all = ["usage", "alerts", "check", "recalculate", "recalculation", "set_alert_emails"])]
    pub user: Option<String>,
    /// List the quotas of the users with a limit; for tenant admins and operators.
    #[arg(long, conflicts_with_all = ["user", "set_limit", "set_files", "set_alert_emails", "check", "usage", "alerts", "recalculate", "recalculation"])]
    pub users: bool,
    /// Remove the storage limit of the user.
    #[arg(long, requires = "user", conflicts_with = "set_limit")]
    pub remove_limit: bool,
    /// Start a job that compares the recorded usage with the files and repairs it; for tenant admins and operators.
    #[arg(long, conflicts_with_all = ["set_limit", "set_files", "set_alert_emails", "check", "usage", "alerts", "recalculation"])]
    pub recalculate: bool,
    /// Show the state and the result of that job.
    #[arg(long, conflicts_with_all = ["set_limit", "set_files", "set_alert_emails", "check", "usage", "alerts"])]
    pub recalculation: bool,
    /// Check whether uploads of these sizes would fit now; exits with 5 if not.
    #[arg(long, value_name = "SIZE", num_args = 1..=100, value_parser = human::parse_size,
        conflicts_with_all = ["set_limit", "set_files", "set_alert_emails", "tenant"])]
    pub check: Vec<i64>,
    /// The category of the uploads to check. Default: that of the policy.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, requires = "check")]
    pub category: String,
    /// The content type of the uploads to check.
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true,
        requires = "check"
    )]
    pub mime_type: String,
    /// Set the storage limit, such as 10GiB.
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size)]
    pub set_limit: Option<i64>,
    /// Set the maximum number of files; 0 means no limit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub set_files: Option<i64>,
    /// Set the addresses that get an e-mail for each alert, separated by commas; empty means none.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub set_alert_emails: Option<Vec<String>>,
    /// The id of the tenant, for operators. Default: the caller's tenant.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub tenant: String,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

pub(super) async fn run_quota(args: QuotaArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    if !args.check.is_empty() {
        return check::run_check(&client, args, output).await;
    }
    let tenant_id = args.tenant.clone();
    if args.alerts {
        return alerts::run_alerts(&client, tenant_id, output).await;
    }
    if args.recalculate {
        return recalculation::start(&client, tenant_id, output).await;
    }
    if args.recalculation {
        return recalculation::show(&client, tenant_id, output).await;
    }
    if let Some(user) = args.user.clone() {
        return users::run_user(&client, &args, &user, output).await;
    }
    if args.users {
        return users::run_users(&client, tenant_id, output).await;
    }
    if args.usage {
        let usage = client.get_usage(GetUsageRequest { tenant_id }).await?;
        return print_usage(&usage, output);
    }
    let quota = match args.update() {
        Some(update) => client.update_quota(update).await?.quota,
        None => get_quota(&client, tenant_id).await?,
    };
    print_quota(&quota.unwrap_or_default(), output)
}

async fn get_quota(client: &Client, tenant_id: String) -> Result<Option<Quota>, Failure> {
    Ok(client.get_quota(GetQuotaRequest { tenant_id }).await?.quota)
}

impl QuotaArgs {
    fn alert_emails(&self) -> Vec<String> {
        let addresses = self.set_alert_emails.iter().flatten().map(|address| address.trim().to_owned());
        addresses.filter(|address| !address.is_empty()).collect()
    }

    fn update(&self) -> Option<UpdateQuotaRequest> {
        let set = [("limit_bytes", self.set_limit), ("file_count_max", self.set_files)];
        let mut paths: Vec<String> =
            set.iter().filter(|(_, to)| to.is_some()).map(|(path, _)| (*path).to_owned()).collect();
        let quota = Quota {
            limit_bytes: self.set_limit.unwrap_or_default(),
            file_count_max: self.set_files.unwrap_or_default(),
            alert_emails: self.alert_emails(),
            ..Quota::default()
        };
        if self.set_alert_emails.is_some() {
            paths.push("alert_emails".to_owned());
        }
        (!paths.is_empty()).then(|| UpdateQuotaRequest {
            quota: Some(quota),
            update_mask: Some(FieldMask { paths }),
            tenant_id: self.tenant.clone(),
            ..UpdateQuotaRequest::default()
        })
    }
}

fn print_quota(quota: &Quota, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::quota(quota));
    }
    let count = |count: i64| if count == 0 { "no limit".to_owned() } else { count.to_string() };
    output.line(format_args!("tenant     {}", human::printable(&quota.tenant_id)))?;
    output.line(format_args!("limit      {}", human::size(quota.limit_bytes)))?;
    output.line(format_args!("used       {} ({})", human::size(quota.used_bytes), percent(quota)))?;
    output.line(format_args!("reserved   {}", human::size(quota.reserved_bytes)))?;
    output.line(format_args!(
        "pending    {} to be deleted, up to {} do not count",
        human::size(quota.pending_deletion_bytes),
        human::size(quota.pending_deletion_bytes_max),
    ))?;
    output.line(format_args!("ceiling    {}", human::size(quota.ceiling_bytes)))?;
    output.line(format_args!("files      {} of {}", quota.file_count, count(quota.file_count_max)))?;
    let last = match &quota.last_warning_sent_time {
        Some(time) => format!("last on {}", human::time_column(Some(time))),
        None => "never yet".to_owned(),
    };
    output.line(format_args!(
        "warns at   {} % and {} %, {last}",
        quota.warning_percent, quota.critical_percent
    ))?;
    if !quota.alert_emails.is_empty() {
        output.line(format_args!("e-mails to {}", human::printable(&quota.alert_emails.join(", "))))?;
    }
    let Some(limits) = &quota.file_size_max_bytes else { return Ok(()) };
    output.line(format_args!(
        "per file   image {}, video {}, audio {}, document {}, other {}",
        human::size(limits.image_bytes),
        human::size(limits.video_bytes),
        human::size(limits.audio_bytes),
        human::size(limits.document_bytes),
        human::size(limits.other_bytes),
    ))
}

fn percent(quota: &Quota) -> String {
    let tenths = i128::from(quota.used_bytes) * 1_000 / i128::from(quota.limit_bytes.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

pub(super) fn print_usage(usage: &GetUsageResponse, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&records::usage(usage));
    }
    let row = |category: &str, kind: &str, files: &str, total: &str, average: &str, share: &str| {
        output.line(format_args!(
            "{category:<20}  {kind:<8}  {files:>10}  {total:>10}  {average:>10}  {share:>7}"
        ))
    };
    row("CATEGORY", "KIND", "FILES", "TOTAL", "AVERAGE", "SHARE")?;
    for entry in &usage.entries {
        let kind = entry.media_kind().as_str_name().trim_start_matches("MEDIA_KIND_").to_lowercase();
        row(
            &human::printable(&entry.category),
            &kind,
            &entry.file_count.to_string(),
            &human::size(entry.total_bytes),
            &human::size(entry.average_bytes),
            &format!("{:.1} %", entry.percent_of_total),
        )?;
    }
    let level = records::level_name(usage.level());
    let at_least = if usage.is_lower_bound { "at least " } else { "" };
    output.line(format_args!(
        "{at_least}{} in {at_least}{} files that you can see; tenant: {:.1} % of {} used ({level}), {} free",
        human::size(usage.used_bytes),
        usage.file_count,
        usage.used_percent,
        human::size(usage.limit_bytes),
        human::size(usage.available_bytes),
    ))
}
