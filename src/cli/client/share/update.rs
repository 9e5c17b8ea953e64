//! `strongroom share update`.

use std::path::PathBuf;

use chrono::{DateTime, FixedOffset};
use clap::Args;
use prost_types::FieldMask;

use super::{print_share, read_password};
use crate::{
    cli::client::{
        connection::ConnectionArgs, failure::Failure, grants::PermissionArg, human, output::Output,
    },
    proto::v1::{FilePermission, Share, UpdateShareRequest},
};

const HELP: &str = "Examples:
  strongroom share update 0199… --expires 2030-02-28
  strongroom share update 0199… --no-expiry --max-downloads 10
  strongroom share update 0199… --password-file pw.txt
  strongroom share update 0199… --user bob --user dora

Exit codes: see strongroom get --help";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct UpdateArgs {
    /// The id of the share.
    pub id: String,
    #[command(flatten)]
    pub terms: Terms,
    /// Fail unless the share has this etag.
    #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
    pub if_etag: String,
    /// Print the share as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Terms {
    /// What the share allows.
    #[arg(long, value_enum)]
    pub permission: Option<PermissionArg>,
    /// When the share ends, such as 2030-01-31 or 2030-01-31T08:30:00Z.
    #[arg(long, value_name = "TIME", value_parser = human::parse_time, conflicts_with = "no_expiry")]
    pub expires: Option<DateTime<FixedOffset>>,
    /// Remove the expiry.
    #[arg(long)]
    pub no_expiry: bool,
    /// The number of downloads after which the link serves no more; 0 means no limit.
    #[arg(long, value_name = "COUNT")]
    pub max_downloads: Option<i64>,
    /// A file whose first line is the new password.
    #[arg(long, value_name = "FILE", conflicts_with = "no_password")]
    pub password_file: Option<PathBuf>,
    /// Remove the password.
    #[arg(long)]
    pub no_password: bool,
    /// A note for the people who see the share.
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// The users that the share serves, instead of the present ones. Can be repeated.
    #[arg(long, value_name = "USER")]
    pub user: Vec<String>,
    /// The group that the share serves, instead of the present one.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

impl Terms {
    /// Returns the mask of the fields to change.
    fn mask(&self) -> FieldMask {
        let set = [
            ("permission", self.permission.is_some()),
            ("expire_time", self.expires.is_some() || self.no_expiry),
            ("max_downloads", self.max_downloads.is_some()),
            ("password", self.password_file.is_some() || self.no_password),
            ("note", self.note.is_some()),
            ("user_ids", !self.user.is_empty()),
            ("group_id", self.group.is_some()),
        ];
        FieldMask {
            paths: set.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (*name).into()).collect(),
        }
    }
}

pub(super) async fn update_share(args: UpdateArgs, output: Output) -> Result<(), Failure> {
    let UpdateArgs { id, terms, if_etag, json: _, connection } = args;
    let password = match &terms.password_file {
        Some(path) => read_password(path).await?,
        None => String::new(),
    };
    let client = connection.connect().await?;
    let update_mask = Some(terms.mask());
    let share = Share {
        id,
        permission: terms.permission.map_or(0, |permission| FilePermission::from(permission).into()),
        expire_time: terms.expires.map(human::timestamp),
        max_downloads: terms.max_downloads.unwrap_or_default(),
        note: terms.note.unwrap_or_default(),
        user_ids: terms.user,
        group_id: terms.group.unwrap_or_default(),
        ..Share::default()
    };
    let request =
        UpdateShareRequest { share: Some(share), password, update_mask, if_etag, request_id: String::new() };
    print_share(&client.update_share(request).await?.share.unwrap_or_default(), output)
}
