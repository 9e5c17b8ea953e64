//! Quotas: limits, usage, and the level of usage.

use super::{
    clock::Timestamp,
    email::{ALERT_ADDRESSES_MAX, check_address},
    file_size_limits::FileSizeLimits,
    ids::TenantId,
    media_type::MediaKind,
    violations::Violations,
};

/// The quota of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Quota {
    pub tenant_id: TenantId,
    pub limit_bytes: i64,
    pub used_bytes: i64,
    pub reserved_bytes: i64,
    pub file_count_max: i64,
    pub file_count: i64,
    pub reserved_file_count: i64,
    pub warning_percent: i16,
    pub critical_percent: i16,
    pub file_size_max_bytes: FileSizeLimits,
    pub ceiling_bytes: i64,
    pub ceiling_file_count: i64,
    /// The bytes of purged files, of replaced objects and of copies in progress, whose objects are not deleted yet.
    /// Absent in responses that earlier releases stored.
    #[serde(default)]
    pub pending_deletion_bytes: i64,
    /// The maximum of these bytes, as a multiple of `limit_bytes`. More of them lower the bytes that can be stored.
    #[serde(default = "default_pending_deletion_multiple")]
    pub pending_deletion_multiple: i64,
    pub revision: i64,
    pub update_time: Timestamp,
    /// The time of the last alert. Absent in responses that earlier releases stored.
    #[serde(default)]
    pub last_warning_sent_time: Option<Timestamp>,
    /// The addresses that get an e-mail for each alert. Absent in responses that earlier releases stored.
    #[serde(default)]
    pub alert_emails: Vec<String>,
}

/// The level of a tenant's usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum QuotaLevel {
    /// Usage is below the warning threshold.
    Ok,
    /// Usage is at or above the warning threshold.
    Warning,
    /// Usage is at or above the critical threshold.
    Critical,
    /// Usage is at or above the limit.
    Full,
}

/// A summary of a tenant's usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct QuotaState {
    pub limit_bytes: i64,
    pub used_bytes: i64,
    pub level: QuotaLevel,
}

/// The values from which a [`QuotaState`] is computed, as stored in responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct QuotaFigures {
    pub limit_bytes: i64,
    pub used_bytes: i64,
    pub warning_percent: i16,
    pub critical_percent: i16,
}

/// Returns [`Quota::pending_deletion_multiple`] where a policy or a stored response has none.
pub fn default_pending_deletion_multiple() -> i64 {
    1
}

/// The maximum limit, in bytes. Sums of several limits still fit into a signed 64-bit integer.
pub const LIMIT_BYTES_MAX: i64 = 1 << 60;

/// The maximum of [`Quota::pending_deletion_multiple`]. With it, products with a limit fit into a signed 64-bit
/// integer.
pub const PENDING_DELETION_MULTIPLE_MAX: i64 = 6;

impl Quota {
    /// Returns the number of bytes that can still be stored: those that are neither used nor reserved, unless too
    /// many bytes are pending deletion.
    pub fn available_bytes(&self) -> i64 {
        let free_bytes = self.limit_bytes - self.used_bytes - self.reserved_bytes;
        let excess_bytes = self.pending_deletion_bytes - self.pending_deletion_bytes_max();
        free_bytes.min(free_bytes - excess_bytes).max(0)
    }

    /// Returns the number of bytes pending deletion that do not lower [`Self::available_bytes`].
    pub fn pending_deletion_bytes_max(&self) -> i64 {
        self.limit_bytes.saturating_mul(self.pending_deletion_multiple)
    }

    /// Returns whether used, reserved and pending bytes together exceed the limit plus
    /// [`Self::pending_deletion_bytes_max`].
    pub fn has_excess_deletions(&self) -> bool {
        let stored_bytes = self.used_bytes + self.reserved_bytes + self.pending_deletion_bytes;
        stored_bytes > self.limit_bytes.saturating_add(self.pending_deletion_bytes_max())
    }

    /// Returns the used share of the limit, in percent.
    #[allow(clippy::cast_precision_loss, reason = "only for display")]
    pub fn used_percent(&self) -> f64 {
        if self.limit_bytes == 0 { 100.0 } else { self.used_bytes as f64 * 100.0 / self.limit_bytes as f64 }
    }

    /// Returns the quota with usage in whole percents of its limits. Exact figures of a tenant, read before and
    /// after, would show the sizes of files that are hidden from the caller.
    #[must_use]
    pub fn in_whole_percents(self) -> Self {
        Self {
            used_bytes: to_whole_percents(self.used_bytes, self.limit_bytes),
            reserved_bytes: to_whole_percents(self.reserved_bytes, self.limit_bytes),
            pending_deletion_bytes: 0,
            ..self
        }
    }

    /// Returns the summary of the usage.
    pub fn state(&self) -> QuotaState {
        QuotaFigures {
            limit_bytes: self.limit_bytes,
            used_bytes: self.used_bytes,
            warning_percent: self.warning_percent,
            critical_percent: self.critical_percent,
        }
        .state()
    }
}

/// Rounds usage up to whole percents of its limit. Without a limit, which is 0, rounds up to whole hundreds.
fn to_whole_percents(used: i64, limit: i64) -> i64 {
    let (used, limit) = (i128::from(used), if limit > 0 { i128::from(limit) } else { 10_000 });
    let percent = (used * 100 + limit - 1).div_euclid(limit);
    i64::try_from(percent * limit / 100).unwrap_or(i64::MAX)
}

impl QuotaFigures {
    /// Computes the summary of the usage.
    pub fn state(&self) -> QuotaState {
        let at_least = |percent: i16| {
            i128::from(self.used_bytes) * 100 >= i128::from(self.limit_bytes) * i128::from(percent)
        };
        let level = if self.used_bytes >= self.limit_bytes {
            QuotaLevel::Full
        } else if at_least(self.critical_percent) {
            QuotaLevel::Critical
        } else if at_least(self.warning_percent) {
            QuotaLevel::Warning
        } else {
            QuotaLevel::Ok
        };
        QuotaState { limit_bytes: self.limit_bytes, used_bytes: self.used_bytes, level }
    }
}

/// A change of a quota. Fields that are `None` are left unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct QuotaChange {
    pub limit_bytes: Option<i64>,
    pub file_count_max: Option<i64>,
    pub warning_percent: Option<i16>,
    pub critical_percent: Option<i16>,
    pub image_bytes: Option<i64>,
    pub video_bytes: Option<i64>,
    pub audio_bytes: Option<i64>,
    pub document_bytes: Option<i64>,
    pub other_bytes: Option<i64>,
    pub ceiling_bytes: Option<i64>,
    pub ceiling_file_count: Option<i64>,
    /// Omitted from the serialized payload if absent, so that the digest of a retry matches that of requests from
    /// releases without this field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_deletion_multiple: Option<i64>,
    /// Omitted if absent, for the same reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_emails: Option<Vec<String>>,
}

impl QuotaChange {
    /// Returns whether it changes a ceiling, which only the operator may.
    pub fn changes_ceiling(&self) -> bool {
        self.ceiling_bytes.is_some() || self.ceiling_file_count.is_some()
    }

    /// Checks that file size limits do not exceed both the current ones and those of the policy, for changes
    /// by a tenant's admin.
    ///
    /// # Errors
    /// Returns the violations, if there are any.
    pub fn check_sizes(&self, quota: &Quota, policy: &FileSizeLimits) -> Result<(), Violations> {
        let mut violations = Violations::new();
        for (kind, requested) in [
            (MediaKind::Image, self.image_bytes),
            (MediaKind::Video, self.video_bytes),
            (MediaKind::Audio, self.audio_bytes),
            (MediaKind::Document, self.document_bytes),
            (MediaKind::Other, self.other_bytes),
        ] {
            let max = quota.file_size_max_bytes.for_kind(kind).max(policy.for_kind(kind));
            if requested.is_some_and(|requested| requested > max) {
                let field = format!("quota.file_size_max_bytes.{kind}_bytes");
                violations
                    .add(field, format!("must be at most {max}; only the operator may set a higher limit"));
            }
        }
        violations.into_result()
    }

    /// Returns the quota after this change.
    ///
    /// If the change lowers a ceiling below the current limit, the limit is lowered with it, unless the
    /// change sets the limit.
    ///
    /// # Errors
    /// Returns all violations of the resulting quota.
    pub fn apply(&self, quota: &Quota) -> Result<Quota, Violations> {
        let mut next = quota.clone();
        let sizes = &mut next.file_size_max_bytes;
        for (slot, value) in [
            (&mut sizes.image, self.image_bytes),
            (&mut sizes.video, self.video_bytes),
            (&mut sizes.audio, self.audio_bytes),
            (&mut sizes.document, self.document_bytes),
            (&mut sizes.other, self.other_bytes),
            (&mut next.ceiling_bytes, self.ceiling_bytes),
            (&mut next.ceiling_file_count, self.ceiling_file_count),
            (&mut next.pending_deletion_multiple, self.pending_deletion_multiple),
        ] {
            *slot = value.unwrap_or(*slot);
        }
        if let Some(addresses) = &self.alert_emails {
            next.alert_emails.clone_from(addresses);
        }
        next.warning_percent = self.warning_percent.unwrap_or(next.warning_percent);
        next.critical_percent = self.critical_percent.unwrap_or(next.critical_percent);
        next.limit_bytes = self.limit_bytes.unwrap_or(next.limit_bytes.min(next.ceiling_bytes));
        next.file_count_max =
            self.file_count_max.unwrap_or_else(|| min_count(next.file_count_max, next.ceiling_file_count));
        check(&next).map(|()| next)
    }
}

/// Returns the lower of two counts, where 0 means no limit.
fn min_count(limit: i64, ceiling: i64) -> i64 {
    match (limit, ceiling) {
        (limit, 0) => limit,
        (0, ceiling) => ceiling,
        (limit, ceiling) => limit.min(ceiling),
    }
}

fn check(quota: &Quota) -> Result<(), Violations> {
    let mut violations = Violations::new();
    let allowed = 0..=LIMIT_BYTES_MAX;
    for (field, value) in [
        ("limit_bytes", quota.limit_bytes),
        ("ceiling_bytes", quota.ceiling_bytes),
        ("file_count_max", quota.file_count_max),
        ("ceiling_file_count", quota.ceiling_file_count),
        ("file_size_max_bytes.image_bytes", quota.file_size_max_bytes.image),
        ("file_size_max_bytes.video_bytes", quota.file_size_max_bytes.video),
        ("file_size_max_bytes.audio_bytes", quota.file_size_max_bytes.audio),
        ("file_size_max_bytes.document_bytes", quota.file_size_max_bytes.document),
        ("file_size_max_bytes.other_bytes", quota.file_size_max_bytes.other),
    ] {
        if !allowed.contains(&value) {
            violations
                .add(format!("quota.{field}"), format!("must be from 0 to {LIMIT_BYTES_MAX}, is {value}"));
        }
    }
    if !(0..=PENDING_DELETION_MULTIPLE_MAX).contains(&quota.pending_deletion_multiple) {
        violations.add(
            "pending_deletion_multiple",
            format!(
                "must be from 0 to {PENDING_DELETION_MULTIPLE_MAX}, is {}",
                quota.pending_deletion_multiple
            ),
        );
    }
    if quota.limit_bytes > quota.ceiling_bytes {
        violations.add(
            "quota.limit_bytes",
            format!("must not exceed the operator's ceiling of {} bytes", quota.ceiling_bytes),
        );
    }
    if min_count(quota.file_count_max, quota.ceiling_file_count) != quota.file_count_max {
        violations.add(
            "quota.file_count_max",
            format!("must not exceed the operator's ceiling of {} files", quota.ceiling_file_count),
        );
    }
    check_addresses(&quota.alert_emails, &mut violations);
    if !(1..=100).contains(&quota.warning_percent) {
        violations.add("quota.warning_percent", "must be from 1 to 100");
    }
    if !(quota.warning_percent..=100).contains(&quota.critical_percent) {
        violations.add("quota.critical_percent", "must be from warning_percent to 100");
    }
    violations.into_result()
}

fn check_addresses(addresses: &[String], violations: &mut Violations) {
    if addresses.len() > ALERT_ADDRESSES_MAX {
        let problem = format!("must have at most {ALERT_ADDRESSES_MAX} addresses, has {}", addresses.len());
        violations.add("quota.alert_emails", problem);
    }
    for (index, address) in addresses.iter().enumerate().take(ALERT_ADDRESSES_MAX) {
        violations.ok_or_add(&format!("quota.alert_emails[{index}]"), check_address(address));
        if addresses[..index].contains(address) {
            violations.add(format!("quota.alert_emails[{index}]"), "must not occur twice");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::policy::Policy;

    fn quota(limit_bytes: i64, used_bytes: i64) -> Quota {
        Quota {
            tenant_id: TenantId::from_uuid(uuid::Uuid::nil()),
            limit_bytes,
            used_bytes,
            reserved_bytes: 0,
            file_count_max: 10,
            file_count: 0,
            reserved_file_count: 0,
            warning_percent: 80,
            critical_percent: 95,
            file_size_max_bytes: Policy::preset("general").unwrap().quota.file_size_max_bytes,
            ceiling_bytes: 1000,
            ceiling_file_count: 10,
            pending_deletion_bytes: 0,
            pending_deletion_multiple: 1,
            revision: 1,
            update_time: Timestamp::default(),
            last_warning_sent_time: None,
            alert_emails: Vec::new(),
        }
    }

    #[test]
    fn level_depends_on_used_share() {
        let level = |used| quota(100, used).state().level;
        assert_eq!(
            [level(79), level(80), level(95), level(100)],
            [QuotaLevel::Ok, QuotaLevel::Warning, QuotaLevel::Critical, QuotaLevel::Full]
        );
    }

    #[test]
    fn bytes_pending_deletion_lower_free_bytes_above_their_limit() {
        let available = |pending_deletion_bytes, pending_deletion_multiple| {
            Quota { pending_deletion_bytes, pending_deletion_multiple, ..quota(100, 40) }.available_bytes()
        };
        assert_eq!(
            [available(0, 1), available(100, 1), available(130, 1), available(500, 1)],
            [60, 60, 30, 0]
        );
        assert_eq!([available(10, 0), available(200, 2), available(201, 2)], [50, 60, 59]);
    }

    #[test]
    fn lowering_the_ceiling_lowers_the_limit() {
        let change = QuotaChange { ceiling_bytes: Some(500), ..QuotaChange::default() };
        assert_eq!(change.apply(&quota(1000, 0)).unwrap().limit_bytes, 500);
    }

    #[test]
    fn admin_cannot_exceed_file_sizes_of_policy_or_operator() {
        let policy = Policy::preset("general").unwrap().quota.file_size_max_bytes;
        let quota = quota(1000, 0);
        let change = |image| QuotaChange { image_bytes: Some(image), ..QuotaChange::default() };
        assert!(change(policy.image).check_sizes(&quota, &policy).is_ok());
        assert!(change(policy.image + 1).check_sizes(&quota, &policy).is_err());
        let mut raised = quota;
        raised.file_size_max_bytes.image = policy.image + 1;
        assert!(change(policy.image + 1).check_sizes(&raised, &policy).is_ok());
    }

    #[test]
    fn reports_all_violations_of_a_change() {
        let change =
            QuotaChange { limit_bytes: Some(2000), warning_percent: Some(0), ..QuotaChange::default() };
        assert_eq!(change.apply(&quota(1000, 0)).unwrap_err().iter().count(), 2);
    }

    #[test]
    fn whole_percents_show_no_exact_usage() {
        let exact = Quota { reserved_bytes: 1, pending_deletion_bytes: 3, ..quota(1000, 941) };
        let shown = exact.in_whole_percents();
        assert_eq!((shown.used_bytes, shown.reserved_bytes, shown.available_bytes()), (950, 10, 40));
        assert_eq!(shown.pending_deletion_bytes, 0);
    }

    #[test]
    fn unlimited_files_exceed_any_ceiling() {
        let change = QuotaChange { file_count_max: Some(0), ..QuotaChange::default() };
        assert!(change.apply(&quota(1000, 0)).is_err());
    }

    proptest! {
        #[test]
        fn usage_is_rounded_up_by_at_most_a_percent(limit in 1..=LIMIT_BYTES_MAX, share in 0.0..1.0) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any value will do")]
            let used = ((limit as f64 * share) as i64).min(limit);
            let shown = to_whole_percents(used, limit);
            prop_assert!(used <= shown && shown <= limit, "{}", shown);
            prop_assert!(i128::from(shown - used) * 100 <= i128::from(limit));
            prop_assert!(to_whole_percents(0, limit) == 0 && to_whole_percents(limit, limit) == limit);
        }

        #[test]
        fn no_change_raises_a_limit_above_the_ceiling(
            limit in proptest::option::of(any::<i64>()),
            ceiling in proptest::option::of(any::<i64>()),
        ) {
            let change = QuotaChange { limit_bytes: limit, ceiling_bytes: ceiling, ..QuotaChange::default() };
            if let Ok(next) = change.apply(&quota(1000, 0)) {
                prop_assert!(next.limit_bytes <= next.ceiling_bytes);
                prop_assert!(next.limit_bytes >= 0);
            }
        }
    }
}
