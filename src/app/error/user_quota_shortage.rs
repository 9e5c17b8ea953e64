//! The reason why bytes or files do not fit the quota of a user.

use std::fmt;

use crate::domain::user_quota::UserQuota;

/// The limit of a user that a change exceeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserQuotaShortage {
    /// The owner of the files.
    pub user_id: String,
    pub exceeded: UserLimit,
    /// The usage of the user. `None` for callers who may not read it.
    pub usage: Option<UserUsage>,
}

/// A limit of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserLimit {
    Bytes { needed_bytes: i64, limit_bytes: i64 },
    Files { file_count_max: i64 },
}

/// The usage of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserUsage {
    pub used_bytes: i64,
    pub reserved_bytes: i64,
    pub file_count: i64,
}

impl UserQuotaShortage {
    /// Describes the quota that `needed_bytes`, or one more file, do not fit.
    pub fn new(quota: &UserQuota, needed_bytes: i64) -> Self {
        let limit_bytes = quota.limit_bytes.filter(|_| Some(needed_bytes) > quota.available_bytes());
        let exceeded = match limit_bytes {
            Some(limit_bytes) => UserLimit::Bytes { needed_bytes, limit_bytes },
            None => UserLimit::Files { file_count_max: quota.file_count_max },
        };
        let usage = UserUsage {
            used_bytes: quota.used_bytes,
            reserved_bytes: quota.reserved_bytes,
            file_count: quota.file_count,
        };
        Self { user_id: quota.user_id.clone(), exceeded, usage: Some(usage) }
    }
}

impl fmt::Display for UserQuotaShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user_id, exceeded, usage } = self;
        match exceeded {
            UserLimit::Bytes { needed_bytes, limit_bytes } => {
                write!(f, "{needed_bytes} more bytes exceed the quota of user {user_id}: ")?;
                match usage {
                    Some(UserUsage { used_bytes, reserved_bytes, .. }) => {
                        write!(f, "{used_bytes} bytes used and {reserved_bytes} reserved of {limit_bytes}")?;
                    }
                    None => write!(f, "the limit is {limit_bytes} bytes")?,
                }
                f.write_str("; purge files of the user, or ask an admin for a higher limit")
            }
            UserLimit::Files { file_count_max } => {
                match usage {
                    Some(UserUsage { file_count, .. }) => {
                        write!(f, "user {user_id} has {file_count} files; ")?
                    }
                    None => write!(f, "user {user_id} has too many files; ")?,
                }
                write!(f, "its limit is {file_count_max}; purge some, or ask an admin for a higher limit")
            }
        }
    }
}
