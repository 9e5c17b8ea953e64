//! What a tenant may store and what it stores, and how full that is.

use super::{
    clock::Timestamp, ids::TenantId, media_type::MediaKind, policy::FileSizeLimits, violations::Violations,
};

/// A tenant's quota row.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's Quota, explained there")]
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
    pub revision: i64,
    pub update_time: Timestamp,
}

/// How full a tenant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum QuotaLevel {
    /// Below the warning threshold.
    Ok,
    /// At or above the warning threshold.
    Warning,
    /// At or above the critical threshold.
    Critical,
    /// Nothing fits any more.
    Full,
}

/// How full a tenant is, in one glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct QuotaState {
    /// The limit.
    pub limit_bytes: i64,
    /// What is stored.
    pub used_bytes: i64,
    /// How full that is.
    pub level: QuotaLevel,
}

/// What a state is made of: the figures of one moment, as an answer keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's Quota, explained there")]
pub struct QuotaFigures {
    pub limit_bytes: i64,
    pub used_bytes: i64,
    pub warning_percent: i16,
    pub critical_percent: i16,
}

/// The largest limit that can be set: what fits a signed 64-bit count with room for sums.
pub const LIMIT_BYTES_MAX: i64 = 1 << 60;

impl Quota {
    /// What still fits.
    pub fn available_bytes(&self) -> i64 {
        (self.limit_bytes - self.used_bytes - self.reserved_bytes).max(0)
    }

    /// The share of the limit that is used, in percent.
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn used_percent(&self) -> f64 {
        if self.limit_bytes == 0 { 100.0 } else { self.used_bytes as f64 * 100.0 / self.limit_bytes as f64 }
    }

    /// How full the tenant is.
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

impl QuotaFigures {
    /// How full that is.
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

/// A change of a quota: what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "the fields are those of the contract's Quota, explained there")]
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
}

impl QuotaChange {
    /// Whether it touches what only the operator may.
    pub fn moves_ceiling(&self) -> bool {
        self.ceiling_bytes.is_some() || self.ceiling_file_count.is_some()
    }

    /// Checks that no file size goes beyond what the operator's policy or the operator gave: what a tenant's admin may set.
    pub fn check_sizes(&self, quota: &Quota, policy: &FileSizeLimits) -> Result<(), Violations> {
        let mut wrong = Violations::new();
        for (kind, asked) in [
            (MediaKind::Image, self.image_bytes),
            (MediaKind::Video, self.video_bytes),
            (MediaKind::Audio, self.audio_bytes),
            (MediaKind::Document, self.document_bytes),
            (MediaKind::Other, self.other_bytes),
        ] {
            let most = quota.file_size_max_bytes.of(kind).max(policy.of(kind));
            if asked.is_some_and(|asked| asked > most) {
                let field = format!("quota.file_size_max_bytes.{kind}_bytes");
                wrong.add(field, format!("must be at most {most}; only the operator may set more"));
            }
        }
        wrong.into_result()
    }

    /// The quota after this change, or everything wrong with it. A limit above a lowered ceiling follows it down,
    /// unless the change names that limit too: then the two contradict each other.
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
        ] {
            *slot = value.unwrap_or(*slot);
        }
        next.warning_percent = self.warning_percent.unwrap_or(next.warning_percent);
        next.critical_percent = self.critical_percent.unwrap_or(next.critical_percent);
        next.limit_bytes = self.limit_bytes.unwrap_or(next.limit_bytes.min(next.ceiling_bytes));
        next.file_count_max =
            self.file_count_max.unwrap_or_else(|| lower_count(next.file_count_max, next.ceiling_file_count));
        check(&next).map(|()| next)
    }
}

/// The lower of two counts where 0 means no limit.
fn lower_count(limit: i64, ceiling: i64) -> i64 {
    match (limit, ceiling) {
        (limit, 0) => limit,
        (0, ceiling) => ceiling,
        (limit, ceiling) => limit.min(ceiling),
    }
}

fn check(quota: &Quota) -> Result<(), Violations> {
    let mut wrong = Violations::new();
    let in_bytes = 0..=LIMIT_BYTES_MAX;
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
        if !in_bytes.contains(&value) {
            wrong.add(format!("quota.{field}"), format!("must be from 0 to {LIMIT_BYTES_MAX}, is {value}"));
        }
    }
    if quota.limit_bytes > quota.ceiling_bytes {
        wrong.add(
            "quota.limit_bytes",
            format!("must not exceed the operator's ceiling of {} bytes", quota.ceiling_bytes),
        );
    }
    if lower_count(quota.file_count_max, quota.ceiling_file_count) != quota.file_count_max {
        wrong.add(
            "quota.file_count_max",
            format!("must not exceed the operator's ceiling of {} files", quota.ceiling_file_count),
        );
    }
    if !(1..=100).contains(&quota.warning_percent) {
        wrong.add("quota.warning_percent", "must be from 1 to 100");
    }
    if !(quota.warning_percent..=100).contains(&quota.critical_percent) {
        wrong.add("quota.critical_percent", "must be from warning_percent to 100");
    }
    wrong.into_result()
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
            revision: 1,
            update_time: Timestamp::default(),
        }
    }

    #[test]
    fn the_level_rises_with_the_share_used() {
        let level = |used| quota(100, used).state().level;
        assert_eq!(
            [level(79), level(80), level(95), level(100)],
            [QuotaLevel::Ok, QuotaLevel::Warning, QuotaLevel::Critical, QuotaLevel::Full]
        );
    }

    #[test]
    fn a_limit_follows_a_lowered_ceiling_down() {
        let change = QuotaChange { ceiling_bytes: Some(500), ..QuotaChange::default() };
        assert_eq!(change.apply(&quota(1000, 0)).unwrap().limit_bytes, 500);
    }

    #[test]
    fn an_admin_stays_below_what_policy_or_operator_gave_per_file() {
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
    fn all_that_is_wrong_is_reported_at_once() {
        let change =
            QuotaChange { limit_bytes: Some(2000), warning_percent: Some(0), ..QuotaChange::default() };
        assert_eq!(change.apply(&quota(1000, 0)).unwrap_err().iter().count(), 2);
    }

    #[test]
    fn no_limit_on_files_is_above_any_ceiling_but_none() {
        let change = QuotaChange { file_count_max: Some(0), ..QuotaChange::default() };
        assert!(change.apply(&quota(1000, 0)).is_err());
    }

    proptest! {
        #[test]
        fn no_change_lifts_a_limit_above_the_ceiling(
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
