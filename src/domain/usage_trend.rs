//! The growth of a tenant's usage, and the time until its quota is full.

const DAY_SECONDS: i64 = 86_400;

/// The growth of the usage of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageTrend {
    /// The bytes that are added each day. Negative if the usage decreases.
    pub growth_bytes_per_day: i64,
    /// The days until the quota is full if the growth continues, rounded down. `None` without growth.
    pub days_until_full: Option<i64>,
}

impl UsageTrend {
    /// Computes the growth from a change of the usage within a time, and the bytes that are left. Returns `None` for
    /// less than one day, from which no growth per day can be concluded.
    pub fn between(seconds: i64, change_bytes: i64, available_bytes: i64) -> Option<Self> {
        if seconds < DAY_SECONDS {
            return None;
        }
        let per_day = i128::from(change_bytes) * i128::from(DAY_SECONDS) / i128::from(seconds);
        // Not above the change, because the time is at least one day.
        let growth_bytes_per_day = i64::try_from(per_day).unwrap_or(i64::MAX);
        let days_until_full =
            (growth_bytes_per_day > 0).then(|| available_bytes.max(0) / growth_bytes_per_day);
        Some(Self { growth_bytes_per_day, days_until_full })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_change_for_each_day() {
        let trend = |seconds, change, available| {
            UsageTrend::between(seconds, change, available)
                .map(|trend| (trend.growth_bytes_per_day, trend.days_until_full))
        };
        assert_eq!(trend(10 * DAY_SECONDS, 1_000, 950), Some((100, Some(9))));
        assert_eq!(trend(10 * DAY_SECONDS, -1_000, 950), Some((-100, None)));
        assert_eq!(trend(10 * DAY_SECONDS, 0, 950), Some((0, None)));
        assert_eq!(trend(2 * DAY_SECONDS, 100, -5), Some((50, Some(0))), "a full quota");
        assert_eq!(trend(DAY_SECONDS - 1, 1_000, 950), None);
        assert_eq!(trend(DAY_SECONDS, i64::MAX, i64::MAX), Some((i64::MAX, Some(1))));
    }
}
