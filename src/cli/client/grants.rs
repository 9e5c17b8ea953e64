//! `strongroom grant`, `ungrant` and `grants`: permissions of users and groups on a file.

use chrono::{DateTime, FixedOffset};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{connection::ConnectionArgs, failure::Failure, human, output::Output, records};
use crate::proto::v1::{
    FilePermission, Grant, GrantAccessRequest, ListGrantsRequest, RevokeAccessRequest, grant,
    grant_access_request, revoke_access_request,
};

/// The largest page that a call may request.
const PAGE_SIZE_MAX: i32 = 1_000;

const GRANT_HELP: &str = "Examples:
  strongroom grant 0198… --user bob
  strongroom grant 0198… --group class-7a --permission view --expires 2030-01-31
  strongroom grant 0198… --user service:archiver --permission delete

Exit codes: see strongroom get --help";
const UNGRANT_HELP: &str = "Examples:
  strongroom ungrant 0198… --user bob
  strongroom ungrant 0198… --group class-7a

Exit codes: see strongroom get --help";
const GRANTS_HELP: &str = "Examples:
  strongroom grants 0198…
  strongroom grants 0198… --json

Exit codes: see strongroom get --help";

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PrincipalArgs {
    /// The user: the subject of its token, or `service:` and that of a service's.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// The group: its id in the tokens of its members.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = GRANT_HELP)]
pub(crate) struct GrantArgs {
    /// The id of the file.
    pub id: String,
    #[command(flatten)]
    pub principal: PrincipalArgs,
    /// The permission. Each includes the former ones.
    #[arg(long, value_enum, default_value_t = PermissionArg::Download)]
    pub permission: PermissionArg,
    /// When the grant ends, such as 2030-01-31 or 2030-01-31T08:30:00Z.
    #[arg(long, value_name = "TIME", value_parser = human::parse_time)]
    pub expires: Option<DateTime<FixedOffset>>,
    /// Print the grant as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = UNGRANT_HELP)]
pub(crate) struct UngrantArgs {
    /// The id of the file.
    pub id: String,
    #[command(flatten)]
    pub principal: PrincipalArgs,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = GRANTS_HELP)]
pub(crate) struct GrantsArgs {
    /// The id of the file.
    pub id: String,
    /// Print the grants as JSON, one per line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PermissionArg {
    /// Read the record, and the bytes for display.
    View,
    /// Save the bytes.
    Download,
    /// Move the file to the trash.
    Delete,
}

impl From<PermissionArg> for FilePermission {
    fn from(permission: PermissionArg) -> Self {
        match permission {
            PermissionArg::View => Self::View,
            PermissionArg::Download => Self::Download,
            PermissionArg::Delete => Self::Delete,
        }
    }
}

pub(super) async fn run_grant(args: GrantArgs, output: Output) -> Result<(), Failure> {
    use grant_access_request::Principal;
    let client = args.connection.connect().await?;
    let PrincipalArgs { user, group } = args.principal;
    let request = GrantAccessRequest {
        file_id: args.id,
        principal: user.map(Principal::UserId).or(group.map(Principal::GroupId)),
        permission: FilePermission::from(args.permission).into(),
        expire_time: args.expires.map(human::timestamp),
        request_id: String::new(),
    };
    let granted = client.grant_access(request).await?.grant.unwrap_or_default();
    if output.json {
        return output.json(&record(&granted));
    }
    output.line(format_args!("{}  {} for {}", granted.file_id, describe(&granted), principal(&granted)))
}

pub(super) async fn run_ungrant(args: UngrantArgs, output: Output) -> Result<(), Failure> {
    use revoke_access_request::Principal;
    let client = args.connection.connect().await?;
    let PrincipalArgs { user, group } = args.principal;
    let request = RevokeAccessRequest {
        file_id: args.id.clone(),
        principal: user.map(Principal::UserId).or(group.map(Principal::GroupId)),
        request_id: String::new(),
    };
    let revoked = client.revoke_access(request).await?.revoked_grant_count;
    if output.json {
        return output.json(&json!({ "file_id": args.id, "revoked_grant_count": revoked }));
    }
    output.line(format_args!("{}  {revoked} grants revoked", human::printable(&args.id)))
}

/// Prints each page as it arrives.
pub(super) async fn run_grants(args: GrantsArgs, output: Output) -> Result<(), Failure> {
    let client = args.connection.connect().await?;
    if !output.json {
        output.line(HEADING)?;
    }
    let mut request =
        ListGrantsRequest { file_id: args.id, page_size: PAGE_SIZE_MAX, page_token: String::new() };
    loop {
        let page = client.list_grants(request.clone()).await?;
        for granted in &page.grants {
            print_grant(granted, output)?;
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

/// The heading of the columns that [`print_grant`] prints.
const HEADING: &str = "PERMISSION  EXPIRES               CREATED               FOR";

fn print_grant(granted: &Grant, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&record(granted));
    }
    output.line(format_args!(
        "{:<10}  {:<20}  {:<20}  {}",
        permission(granted),
        human::time_column(granted.expire_time.as_ref()),
        human::time_column(granted.create_time.as_ref()),
        principal(granted),
    ))
}

fn permission(granted: &Grant) -> String {
    let name = granted.permission().as_str_name();
    name.strip_prefix("FILE_PERMISSION_").unwrap_or(name).to_lowercase()
}

fn describe(granted: &Grant) -> String {
    match &granted.expire_time {
        Some(_) => {
            format!("{} until {}", permission(granted), human::time_column(granted.expire_time.as_ref()))
        }
        None => permission(granted),
    }
}

/// Formats who has the grant, and the share that created it.
fn principal(granted: &Grant) -> String {
    let principal = match &granted.principal {
        Some(grant::Principal::UserId(id)) => format!("user {}", human::printable(id)),
        Some(grant::Principal::GroupId(id)) => format!("group {}", human::printable(id)),
        Some(grant::Principal::Organization(_)) => "organization".to_owned(),
        None => "-".to_owned(),
    };
    match granted.share_id.as_str() {
        "" => principal,
        share => format!("{principal} (share {})", human::printable(share)),
    }
}

pub(super) fn record(granted: &Grant) -> Value {
    let (user, group, organization) = match &granted.principal {
        Some(grant::Principal::UserId(id)) => (Some(id), None, false),
        Some(grant::Principal::GroupId(id)) => (None, Some(id), false),
        Some(grant::Principal::Organization(is_set)) => (None, None, *is_set),
        None => (None, None, false),
    };
    json!({
        "id": granted.id,
        "file_id": granted.file_id,
        "user_id": user,
        "group_id": group,
        "organization": organization,
        "permission": granted.permission().as_str_name(),
        "expire_time": records::time(granted.expire_time.as_ref()),
        "share_id": granted.share_id,
        "source_grant_id": granted.source_grant_id,
        "created_by": granted.created_by,
        "create_time": records::time(granted.create_time.as_ref()),
        "update_time": records::time(granted.update_time.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grant_is_described_with_its_expiry() {
        let mut granted = Grant {
            permission: FilePermission::View.into(),
            principal: Some(grant::Principal::GroupId("class-7a\u{1b}".into())),
            ..Grant::default()
        };
        assert_eq!((describe(&granted).as_str(), principal(&granted).contains('\u{1b}')), ("view", false));
        granted.expire_time = Some(prost_types::Timestamp::default());
        assert_eq!(describe(&granted), "view until 1970-01-01 00:00 UTC");
    }
}
