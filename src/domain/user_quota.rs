//! Quotas of users inside their tenant.

use serde::{Deserialize, Serialize};

use super::{clock::Timestamp, quota::LIMIT_BYTES_MAX, violations::Violations};

/// The quota of a user. It counts the files that the user owns, as the quota of the tenant counts all files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserQuota {
    /// The id of the user or service, as in `File.owner_id`.
    pub user_id: String,
    /// `None` means that only the quota of the tenant applies.
    pub limit_bytes: Option<i64>,
    /// 0 means no limit.
    pub file_count_max: i64,
    pub used_bytes: i64,
    pub reserved_bytes: i64,
    pub file_count: i64,
    pub reserved_file_count: i64,
    pub revision: i64,
    /// The time of the last change of the limits.
    pub update_time: Timestamp,
}

impl UserQuota {
    /// Returns the etag, which changes with the limits.
    pub fn etag(&self) -> String {
        self.revision.to_string()
    }

    /// Returns the bytes that the user can still store; `None` without a limit.
    pub fn available_bytes(&self) -> Option<i64> {
        self.limit_bytes.map(|limit| (limit - self.used_bytes - self.reserved_bytes).max(0))
    }

    /// Returns whether `count` more files exceed the limit.
    pub fn exceeds_files(&self, count: i64) -> bool {
        let next = self.file_count.saturating_add(self.reserved_file_count).saturating_add(count);
        count > 0 && self.file_count_max > 0 && next > self.file_count_max
    }
}

/// A change of the limits. Fields that are `None` are left unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UserQuotaChange {
    /// `Some(None)` removes the limit.
    pub limit_bytes: Option<Option<i64>>,
    /// 0 removes the limit.
    pub file_count_max: Option<i64>,
}

impl UserQuotaChange {
    /// Adds a violation for each limit that is out of range.
    pub fn check(&self, violations: &mut Violations) {
        for (field, value) in
            [("limit_bytes", self.limit_bytes.flatten()), ("file_count_max", self.file_count_max)]
        {
            if let Some(value) = value.filter(|value| !(0..=LIMIT_BYTES_MAX).contains(value)) {
                let problem = format!("must be from 0 to {LIMIT_BYTES_MAX}, is {value}");
                violations.add(format!("quota.{field}"), problem);
            }
        }
    }

    /// Returns the quota after this change.
    #[must_use]
    pub fn apply(&self, quota: UserQuota) -> UserQuota {
        UserQuota {
            limit_bytes: self.limit_bytes.unwrap_or(quota.limit_bytes),
            file_count_max: self.file_count_max.unwrap_or(quota.file_count_max),
            ..quota
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(limit_bytes: Option<i64>, file_count_max: i64) -> UserQuota {
        UserQuota {
            user_id: "alice".to_owned(),
            limit_bytes,
            file_count_max,
            used_bytes: 60,
            reserved_bytes: 30,
            file_count: 3,
            reserved_file_count: 1,
            revision: 1,
            update_time: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn reservations_lower_the_available_bytes() {
        assert_eq!(quota(Some(100), 0).available_bytes(), Some(10));
        assert_eq!(quota(Some(50), 0).available_bytes(), Some(0));
        assert_eq!(quota(None, 0).available_bytes(), None);
    }

    #[test]
    fn reserved_files_count_towards_the_limit() {
        assert!(!quota(None, 5).exceeds_files(1) && quota(None, 5).exceeds_files(2));
        assert!(!quota(None, 4).exceeds_files(0) && !quota(None, 0).exceeds_files(9));
    }

    #[test]
    fn change_names_each_limit_that_is_out_of_range() {
        let change = UserQuotaChange { limit_bytes: Some(Some(-1)), file_count_max: Some(i64::MAX) };
        let mut violations = Violations::new();
        UserQuotaChange { limit_bytes: Some(None), ..UserQuotaChange::default() }.check(&mut violations);
        assert!(violations.is_empty());
        change.check(&mut violations);
        let fields: Vec<_> = violations.iter().map(|violation| violation.field.clone()).collect();
        assert_eq!(fields, ["quota.limit_bytes", "quota.file_count_max"]);
    }

    #[test]
    fn change_removes_only_the_limits_that_it_names() {
        let change = UserQuotaChange { limit_bytes: Some(None), file_count_max: None };
        let next = change.apply(quota(Some(100), 7));
        assert_eq!((next.limit_bytes, next.file_count_max), (None, 7));
    }
}
