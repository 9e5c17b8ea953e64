//! Quotas of users inside their tenant. Admins set them; users read their own.

mod get;
mod list;
mod update;

pub use self::{
    get::get_user_quota,
    list::{UserQuotaPage, list_user_quotas},
    update::{UserQuotaUpdate, update_user_quota},
};

use crate::domain::{clock::Timestamp, user_quota::UserQuota};

/// Returns the quota of a user whose limits were never set.
fn unlimited(user_id: String) -> UserQuota {
    UserQuota {
        user_id,
        limit_bytes: None,
        file_count_max: 0,
        used_bytes: 0,
        reserved_bytes: 0,
        file_count: 0,
        reserved_file_count: 0,
        revision: 0,
        update_time: Timestamp::UNIX_EPOCH,
    }
}
