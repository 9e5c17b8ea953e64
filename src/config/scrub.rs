//! `[scrub]`: background work reads every blob once in a period, and verifies its bytes.

use std::time::Duration;

use serde::Deserialize;

use super::validation::Violations;
use crate::domain::scrub::{SCRUB_RATE_MIN_BYTES_PER_SECOND, ScrubSchedule, ScrubWindow};

/// The highest rate that can be configured: 64 GiB per second.
const RATE_MAX: u64 = 64 << 30;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubConfig {
    /// Whether background work scrubs.
    pub enabled: bool,
    /// The time in which each blob is read once, in days.
    pub period_days: u32,
    /// The hours of the day in UTC, such as `22-6`; empty for the whole day.
    pub window: String,
    /// The rate of one provider in all processes together, in bytes per second; 0 to derive it.
    pub bytes_per_second: u64,
    /// The highest rate that is derived, in bytes per second.
    pub bytes_per_second_max: u64,
    /// The time after which the claim of a blob expires if it is not renewed, in seconds.
    pub claim_seconds: u64,
    /// Maximum time in which the work on a blob reads and writes no byte, in seconds.
    pub stall_seconds: u64,
}

impl ScrubConfig {
    /// Returns the schedule. Ignores an invalid window, which the validation rejects.
    pub fn schedule(&self) -> ScrubSchedule {
        ScrubSchedule {
            period_days: self.period_days,
            window: self.window.parse().ok(),
            bytes_per_second: Some(self.bytes_per_second).filter(|rate| *rate > 0),
            bytes_per_second_max: self.bytes_per_second_max,
        }
    }

    /// Returns the interval at which a process renews its claim of a blob.
    pub fn claim_renewal_interval(&self) -> Duration {
        Duration::from_secs(self.claim_seconds / 3)
    }

    /// Returns the maximum time in which the work on a blob reads and writes no byte.
    pub fn stall_limit(&self) -> Duration {
        Duration::from_secs(self.stall_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("scrub.period_days", self.period_days, 1..=3_650);
        if !self.window.is_empty()
            && let Err(error) = self.window.parse::<ScrubWindow>()
        {
            violations.add("scrub.window", format!("{error}; not `{}`", self.window));
        }
        if self.bytes_per_second != 0 {
            violations.check_range("scrub.bytes_per_second", self.bytes_per_second, 65_536..=RATE_MAX);
        }
        let range = SCRUB_RATE_MIN_BYTES_PER_SECOND..=RATE_MAX;
        violations.check_range("scrub.bytes_per_second_max", self.bytes_per_second_max, range);
        violations.check_range("scrub.claim_seconds", self.claim_seconds, 30..=86_400);
        violations.check_range("scrub.stall_seconds", self.stall_seconds, 60..=86_400);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn window_and_rate_are_checked() {
        let check = |change: fn(&mut ScrubConfig)| {
            let mut scrub = Config::defaults().unwrap().scrub;
            change(&mut scrub);
            let mut violations = Violations::default();
            scrub.check(&mut violations);
            violations.into_result(|_| None).is_ok()
        };
        assert!(check(|scrub| scrub.window = "22-6".to_owned()));
        assert!(!check(|scrub| scrub.window = "22".to_owned()));
        assert!(check(|scrub| scrub.bytes_per_second = 65_536));
        assert!(!check(|scrub| scrub.bytes_per_second = 1));
        assert!(!check(|scrub| scrub.bytes_per_second_max = 0));
    }
}
