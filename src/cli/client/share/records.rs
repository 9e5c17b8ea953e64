//! Shares as text and as JSON.

use serde_json::{Value, json};

use crate::{
    cli::client::{failure::Failure, human, output::Output, records},
    proto::v1::{Share, ShareType},
};

/// The heading of the columns that [`print_row`] prints.
pub(super) const HEADING: &str =
    "SHARE                                 STATE      PERMISSION  DOWNLOADS  EXPIRES               FOR";

/// Prints one line about a share.
pub(super) fn print_row(share: &Share, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&record(share));
    }
    output.line(format_args!(
        "{:<36}  {:<9}  {:<10}  {:>9}  {:<20}  {}",
        human::printable(&share.id),
        state(share),
        permission(share),
        downloads(share),
        human::time_column(share.expire_time.as_ref()),
        recipients(share),
    ))
}

/// Prints a share, one line per property.
pub(super) fn print_share(share: &Share, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&record(share));
    }
    let password = if share.has_password { "yes" } else { "no" };
    output.line(format_args!("share       {}", human::printable(&share.id)))?;
    output.line(format_args!("file        {}", human::printable(&share.file_id)))?;
    output.line(format_args!("for         {}", recipients(share)))?;
    output.line(format_args!("state       {}", state(share)))?;
    output.line(format_args!("permission  {}", permission(share)))?;
    output.line(format_args!("expires     {}", human::time_column(share.expire_time.as_ref())))?;
    if is_link(share) {
        output.line(format_args!("password    {password}"))?;
        output.line(format_args!("downloads   {}", downloads(share)))?;
        output.line(format_args!("last used   {}", human::time_column(share.last_access_time.as_ref())))?;
    }
    if !share.note.is_empty() {
        output.line(format_args!("note        {}", human::printable(&share.note)))?;
    }
    output.line(format_args!("created by  {}", human::printable(&share.created_by)))
}

/// Prints a share and its new token, if it has one.
pub(super) fn print_share_with_token(share: &Share, token: &str, output: Output) -> Result<(), Failure> {
    if output.json {
        let mut record = record(share);
        record["token"] = json!(token);
        return output.json(&record);
    }
    print_share(share, output)?;
    if token.is_empty() {
        return Ok(());
    }
    output.line(format_args!("token       {}", human::printable(token)))?;
    output.note("the token is not shown again; share rotate makes a new one".to_owned());
    Ok(())
}

fn is_link(share: &Share) -> bool {
    matches!(share.r#type(), ShareType::PublicLink | ShareType::Temporary)
}

fn state(share: &Share) -> String {
    lower(share.state().as_str_name(), "SHARE_STATE_")
}

fn permission(share: &Share) -> String {
    lower(share.permission().as_str_name(), "FILE_PERMISSION_")
}

fn lower(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

fn downloads(share: &Share) -> String {
    match (is_link(share), share.max_downloads) {
        (false, _) => "-".to_owned(),
        (true, 0) => share.download_count.to_string(),
        (true, max) => format!("{} of {max}", share.download_count),
    }
}

fn recipients(share: &Share) -> String {
    match share.r#type() {
        ShareType::PublicLink => "anyone with the link".to_owned(),
        ShareType::Temporary => "anyone with the temporary link".to_owned(),
        ShareType::Organization => "organization".to_owned(),
        ShareType::Group => format!("group {}", human::printable(&share.group_id)),
        ShareType::Users => format!("users {}", human::printable(&share.user_ids.join(", "))),
        ShareType::Unspecified => "-".to_owned(),
    }
}

pub(in crate::cli::client) fn record(share: &Share) -> Value {
    json!({
        "id": share.id,
        "file_id": share.file_id,
        "type": share.r#type().as_str_name(),
        "permission": share.permission().as_str_name(),
        "state": share.state().as_str_name(),
        "expire_time": records::time(share.expire_time.as_ref()),
        "max_downloads": share.max_downloads,
        "version": share.version,
        "note": share.note,
        "user_ids": share.user_ids,
        "group_id": share.group_id,
        "has_password": share.has_password,
        "download_count": share.download_count,
        "view_count": share.view_count,
        "last_access_time": records::time(share.last_access_time.as_ref()),
        "created_by": share.created_by,
        "source_grant_id": share.source_grant_id,
        "create_time": records::time(share.create_time.as_ref()),
        "update_time": records::time(share.update_time.as_ref()),
        "revoke_time": records::time(share.revoke_time.as_ref()),
        "etag": share.etag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_described_by_type_and_count() {
        let link = Share {
            r#type: ShareType::PublicLink.into(),
            max_downloads: 3,
            download_count: 1,
            ..Share::default()
        };
        assert_eq!(
            (recipients(&link).as_str(), downloads(&link).as_str()),
            ("anyone with the link", "1 of 3")
        );
        let users = Share {
            r#type: ShareType::Users.into(),
            user_ids: vec!["bob".into(), "eve\u{1b}".into()],
            ..Share::default()
        };
        assert!(recipients(&users).starts_with("users bob, eve"), "{}", recipients(&users));
        assert!(!recipients(&users).contains('\u{1b}'));
        assert_eq!(downloads(&users), "-");
    }
}
