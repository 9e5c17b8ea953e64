//! `strongroom quota --user` and `--users`: show and set the quotas of users.

use prost_types::FieldMask;
use serde_json::{Value, json};

use super::QuotaArgs;
use crate::{
    cli::client::{failure::Failure, human, output::Output, records::rfc3339},
    client::Client,
    proto::v1::{GetUserQuotaRequest, ListUserQuotasRequest, UpdateUserQuotaRequest, UserQuota},
};

/// The page size of a list that is printed completely.
const PAGE_SIZE: i32 = 1_000;

/// Shows the quota of a user, or sets the limits that the options name.
pub(super) async fn run_user(
    client: &Client,
    args: &QuotaArgs,
    user: &str,
    output: Output,
) -> Result<(), Failure> {
    let mut paths = Vec::new();
    if args.set_limit.is_some() || args.remove_limit {
        paths.push("limit_bytes".to_owned());
    }
    if args.set_files.is_some() {
        paths.push("file_count_max".to_owned());
    }
    let quota = if paths.is_empty() {
        let request = GetUserQuotaRequest { tenant_id: args.tenant.clone(), user_id: user.to_owned() };
        client.get_user_quota(request).await?.quota
    } else {
        let quota = UserQuota {
            user_id: user.to_owned(),
            limit_bytes: args.set_limit,
            file_count_max: args.set_files.unwrap_or_default(),
            ..UserQuota::default()
        };
        let request = UpdateUserQuotaRequest {
            tenant_id: args.tenant.clone(),
            quota: Some(quota),
            update_mask: Some(FieldMask { paths }),
            ..UpdateUserQuotaRequest::default()
        };
        client.update_user_quota(request).await?.quota
    };
    print_heading(output)?;
    print(&quota.unwrap_or_default(), output)
}

pub(super) async fn run_users(client: &Client, tenant_id: String, output: Output) -> Result<(), Failure> {
    let mut request = ListUserQuotasRequest { tenant_id, page_size: PAGE_SIZE, page_token: String::new() };
    print_heading(output)?;
    loop {
        let page = client.list_user_quotas(request.clone()).await?;
        page.quotas.iter().try_for_each(|quota| print(quota, output))?;
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

fn print_heading(output: Output) -> Result<(), Failure> {
    if output.json {
        return Ok(());
    }
    print_row(["USER", "USED", "RESERVED", "LIMIT", "FILES", "MAX FILES"], output)
}

fn print(quota: &UserQuota, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&user_record(quota));
    }
    let (limit, files) = (quota.limit_bytes.map(human::size), quota.file_count_max);
    print_row(
        [
            &human::printable(&quota.user_id),
            &human::size(quota.used_bytes),
            &human::size(quota.reserved_bytes),
            limit.as_deref().unwrap_or("no limit"),
            &quota.file_count.to_string(),
            &if files == 0 { "no limit".to_owned() } else { files.to_string() },
        ],
        output,
    )
}

fn print_row(
    [user, used, reserved, limit, files, files_max]: [&str; 6],
    output: Output,
) -> Result<(), Failure> {
    output
        .line(format_args!("{user:<24}  {used:>10}  {reserved:>10}  {limit:>10}  {files:>9}  {files_max:>9}"))
}

pub(in crate::cli::client) fn user_record(quota: &UserQuota) -> Value {
    json!({
        "user_id": quota.user_id,
        "limit_bytes": quota.limit_bytes,
        "file_count_max": quota.file_count_max,
        "used_bytes": quota.used_bytes,
        "reserved_bytes": quota.reserved_bytes,
        "file_count": quota.file_count,
        "reserved_file_count": quota.reserved_file_count,
        "etag": quota.etag,
        "update_time": rfc3339(quota.update_time),
    })
}
