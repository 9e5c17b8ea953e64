//! `strongroom share create`.

use std::path::PathBuf;

use chrono::{DateTime, FixedOffset};
use clap::Args;

use super::{print_share_with_token, read_password};
use crate::{
    cli::client::{
        connection::ConnectionArgs, failure::Failure, grants::PermissionArg, human, output::Output,
    },
    proto::v1::{CreateShareRequest, FilePermission, Share, ShareType},
};

const HELP: &str = "Examples:
  strongroom share create 0198…
  strongroom share create 0198… --password-file pw.txt --max-downloads 3 --expires 2030-01-31
  strongroom share create 0198… --temporary --permission view
  strongroom share create 0198… --user bob --user carol --note 'for review'
  strongroom share create 0198… --group class-7a
  strongroom share create 0198… --organization

Exit codes: see strongroom get --help";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct CreateArgs {
    /// The id of the file.
    pub id: String,
    #[command(flatten)]
    pub to: Recipients,
    /// What the share allows. A link allows view or download.
    #[arg(long, value_enum, default_value_t = PermissionArg::Download)]
    pub permission: PermissionArg,
    /// When the share ends, such as 2030-01-31 or 2030-01-31T08:30:00Z.
    #[arg(long, value_name = "TIME", value_parser = human::parse_time)]
    pub expires: Option<DateTime<FixedOffset>>,
    /// For links: the number of downloads after which it serves no more.
    #[arg(long, value_name = "COUNT")]
    pub max_downloads: Option<i64>,
    /// For links: the version to serve, instead of the current one.
    #[arg(long, value_name = "NUMBER")]
    pub version: Option<i32>,
    /// For links: a file whose first line is the password that visitors must know.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A note for the people who see the share.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub note: String,
    /// Print the share and its token as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Recipients {
    /// Create a link that ends after a day, or at --expires, at most seven days later.
    #[arg(long)]
    pub temporary: bool,
    /// Share with this user: the subject of its token. Can be repeated.
    #[arg(long, value_name = "USER")]
    pub user: Vec<String>,
    /// Share with this group: its id in the tokens of its members.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Share with everyone in the organization.
    #[arg(long)]
    pub organization: bool,
}

impl Recipients {
    fn share_type(&self) -> ShareType {
        if self.temporary {
            ShareType::Temporary
        } else if self.organization {
            ShareType::Organization
        } else if self.group.is_some() {
            ShareType::Group
        } else if self.user.is_empty() {
            ShareType::PublicLink
        } else {
            ShareType::Users
        }
    }
}

pub(super) async fn create_share(args: CreateArgs, output: Output) -> Result<(), Failure> {
    let password = match &args.password_file {
        Some(path) => read_password(path).await?,
        None => String::new(),
    };
    let client = args.connection.connect().await?;
    let share = Share {
        file_id: args.id,
        r#type: args.to.share_type().into(),
        permission: FilePermission::from(args.permission).into(),
        expire_time: args.expires.map(human::timestamp),
        max_downloads: args.max_downloads.unwrap_or_default(),
        version: args.version.unwrap_or_default(),
        note: args.note,
        user_ids: args.to.user,
        group_id: args.to.group.unwrap_or_default(),
        ..Share::default()
    };
    let request = CreateShareRequest { share: Some(share), password, request_id: String::new() };
    let created = client.create_share(request).await?;
    print_share_with_token(&created.share.unwrap_or_default(), &created.token, output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_decide_about_the_type() {
        let none = || Recipients { temporary: false, user: Vec::new(), group: None, organization: false };
        let cases = [
            (none(), ShareType::PublicLink),
            (Recipients { temporary: true, ..none() }, ShareType::Temporary),
            (Recipients { user: vec!["bob".into()], ..none() }, ShareType::Users),
            (Recipients { group: Some("7a".into()), ..none() }, ShareType::Group),
            (Recipients { organization: true, ..none() }, ShareType::Organization),
        ];
        for (recipients, expected) in cases {
            assert_eq!(recipients.share_type(), expected);
        }
    }
}
