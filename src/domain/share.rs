//! Shares: links for visitors without an account, and permissions for recipients in the tenant.

use super::{
    clock::Timestamp,
    file::File,
    ids::{FileId, GrantId, ShareId},
    permission::Permission,
    policy::Policy,
    sql_enum::sql_enum,
};

/// The maximum number of shares of a file that are neither revoked nor expired.
pub const SHARES_PER_FILE_MAX: usize = 1_000;
/// The maximum number of recipients of a share.
pub const RECIPIENTS_MAX: usize = 100;
/// The maximum length of a note in characters.
pub const NOTE_CHARACTERS_MAX: usize = 500;
/// The minimum and maximum length of a password in characters. The maximum limits the work of hashing it.
pub const PASSWORD_CHARACTERS: std::ops::RangeInclusive<usize> = 8..=128;
/// The maximum of `max_downloads`.
pub const DOWNLOADS_MAX: i64 = 1_000_000_000;
/// How long a temporary share lives if its request does not say, in hours.
pub const TEMPORARY_HOURS_DEFAULT: i64 = 24;
/// How long a temporary share lives at most, in hours.
pub const TEMPORARY_HOURS_MAX: i64 = 7 * 24;

sql_enum! {
    /// Whom a share serves.
    ShareType {
        /// Anyone who has the link.
        PublicLink = 1 => "public_link",
        /// All members of the tenant.
        Organization = 2 => "organization",
        /// Some users of the tenant.
        Users = 3 => "users",
        /// A group of the tenant, for example a class.
        Group = 4 => "group",
        /// Anyone who has the link, for at most seven days.
        Temporary = 5 => "temporary",
    }
}

impl ShareType {
    /// Returns whether the share is a link, which has a token.
    pub const fn is_link(self) -> bool {
        matches!(self, Self::PublicLink | Self::Temporary)
    }
}

/// The state of a share. It does not depend on the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareState {
    /// It serves its recipients or visitors.
    Active,
    /// It was revoked.
    Revoked,
    /// Its time has passed.
    Expired,
    /// It has served as many downloads as it may. A visitor who has started one can finish it.
    Exhausted,
}

/// A share without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Share {
    pub id: ShareId,
    pub file: FileId,
    pub share_type: ShareType,
    pub permission: Permission,
    pub has_password: bool,
    /// The version that it serves; `None` for the current version at the time of reading.
    pub pinned_version: Option<i32>,
    pub expire_time: Option<Timestamp>,
    pub max_downloads: Option<i64>,
    pub download_count: i64,
    pub view_count: i64,
    pub last_access_time: Option<Timestamp>,
    pub note: String,
    /// The ids of the users, or the id of the group, that it serves. Empty for links and organizations.
    #[serde(default)]
    pub recipients: Vec<String>,
    pub created_by: String,
    /// The grant under which its creator shared the file. `None` if the creator was the owner or an admin. The share
    /// never exceeds it, and ends with it.
    #[serde(default)]
    pub source_grant: Option<GrantId>,
    pub create_time: Timestamp,
    pub update_time: Timestamp,
    /// Incremented with every change by a caller. Not by downloads and views.
    pub revision: i64,
    pub revoke_time: Option<Timestamp>,
}

impl Share {
    /// Returns the etag. Downloads and views do not change it.
    pub fn etag(&self) -> String {
        self.revision.to_string()
    }

    /// Returns whether the share is neither revoked nor expired.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.revoke_time.is_none() && self.expire_time.is_none_or(|end| now < end)
    }

    /// Returns the state at a time.
    pub fn state(&self, now: Timestamp) -> ShareState {
        if self.revoke_time.is_some() {
            ShareState::Revoked
        } else if !self.is_open(now) {
            ShareState::Expired
        } else if self.max_downloads.is_some_and(|max| self.download_count >= max) {
            ShareState::Exhausted
        } else {
            ShareState::Active
        }
    }
}

/// Returns whether the share serves bytes of its file: it is neither revoked nor expired, and the file is available and
/// outside the trash and the archive. A link also needs that it follows the rules of the category for links, which may be
/// newer than the link, and that the file is under no legal hold, which ends its distribution outside of the tenant.
///
/// An exhausted share still serves the downloads that it has counted, so this does not check the number of downloads.
/// The state of the tenant is checked where its rows are accessed.
pub fn is_live(share: &Share, file: &File, policy: &Policy, now: Timestamp) -> bool {
    let is_link_allowed = || file.hold.is_none() && policy.link_rules(&file.category).allow(share);
    share.file == file.id
        && share.is_open(now)
        && file.check_readable().is_ok()
        && (!share.share_type.is_link() || is_link_allowed())
}
