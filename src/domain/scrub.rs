//! The schedule of scrubbing: when background work reads the stored blobs again, and how fast.
//!
//! A *pass* reads the blobs that were last verified before its start, the oldest first, spread evenly over nine
//! tenths of the period. The next pass starts when this time has passed. Each blob keeps its place in the order, so
//! that it is read about once in a period.

use std::{fmt, str::FromStr};

use chrono::{Duration, Timelike as _};

use super::clock::Timestamp;

/// The lowest rate that is derived from the stored bytes, in bytes per second. A small store is read in a short time.
pub const SCRUB_RATE_MIN_BYTES_PER_SECOND: u64 = 1024 * 1024;

/// The bytes that a blob counts at least, because reading it costs requests.
const BLOB_COST_BYTES_MIN: u64 = 64 * 1024;

/// Hours of the day, in UTC, in which blobs are scrubbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubWindow {
    from_hour: u32,
    hour_count: u32,
}

/// A window is not written as two hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be two different hours of the day in UTC, such as `22-6`: 0 to 23, and 1 to 24")]
pub struct ScrubWindowError;

impl FromStr for ScrubWindow {
    type Err = ScrubWindowError;

    fn from_str(text: &str) -> Result<Self, ScrubWindowError> {
        let hour = |text: &str| text.parse::<u32>().map_err(|_| ScrubWindowError);
        let (from, to) = text.split_once('-').ok_or(ScrubWindowError)?;
        let (from_hour, to_hour) = (hour(from)?, hour(to)?);
        if from_hour > 23 || !(1..=24).contains(&to_hour) || from_hour == to_hour {
            return Err(ScrubWindowError);
        }
        let hour_count = if to_hour > from_hour { to_hour - from_hour } else { 24 - from_hour + to_hour };
        Ok(Self { from_hour, hour_count })
    }
}

impl fmt::Display for ScrubWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from_hour, (self.from_hour + self.hour_count - 1) % 24 + 1)
    }
}

impl ScrubWindow {
    /// Returns whether a time is in the window.
    pub fn contains(self, time: Timestamp) -> bool {
        (time.hour() + 24 - self.from_hour) % 24 < self.hour_count
    }
}

/// The configured schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubSchedule {
    /// The time in which each blob is read once, in days.
    pub period_days: u32,
    /// `None` if blobs are scrubbed at any time.
    pub window: Option<ScrubWindow>,
    /// The rate of one provider in all processes together; `None` to derive it from the stored bytes.
    pub bytes_per_second: Option<u64>,
    /// The highest rate that is derived.
    pub bytes_per_second_max: u64,
}

impl ScrubSchedule {
    /// Returns whether blobs may be scrubbed at a time.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.window.is_none_or(|window| window.contains(now))
    }

    /// Returns the time from the start of a pass to that of the next one. The rest of the period is for delays.
    pub fn pass_interval(&self) -> Duration {
        Duration::hours(i64::from(self.period_days) * 24 * 9 / 10)
    }

    /// Returns the rate at which the rest of a pass ends in time, in bytes per second. The last day of a pass, and the
    /// time after it, count as a whole day.
    pub fn rate(&self, left_bytes: u64, pass_start: Timestamp, now: Timestamp) -> u64 {
        if let Some(configured) = self.bytes_per_second {
            return configured;
        }
        let left = (pass_start + self.pass_interval() - now).max(Duration::days(1));
        let seconds = u64::try_from(left.num_seconds()).unwrap_or(u64::MAX);
        let open_seconds = seconds * u64::from(self.window.map_or(24, |window| window.hour_count)) / 24;
        left_bytes
            .div_ceil(open_seconds.max(1))
            .max(SCRUB_RATE_MIN_BYTES_PER_SECOND)
            .min(self.bytes_per_second_max)
    }
}

/// Returns the bytes that a blob of this size counts in the rate.
pub fn scrub_cost_bytes(size_bytes: u64) -> u64 {
    size_bytes.max(BLOB_COST_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_SECONDS: u64 = 24 * 60 * 60;

    fn schedule() -> ScrubSchedule {
        ScrubSchedule {
            period_days: 30,
            window: None,
            bytes_per_second: None,
            bytes_per_second_max: 100 << 20,
        }
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::hours(hours)
    }

    #[test]
    fn windows_may_include_midnight() {
        let open = |text: &str| {
            let window: ScrubWindow = text.parse().unwrap();
            assert_eq!(window.to_string(), text);
            (0..24).filter(|hour| window.contains(at(*hour) + Duration::minutes(59))).collect::<Vec<_>>()
        };
        assert_eq!(open("22-2"), [0, 1, 22, 23]);
        assert_eq!(open("1-3"), [1, 2]);
        assert_eq!(open("23-24"), [23]);
        assert_eq!(open("0-24").len(), 24);
        for invalid in ["", "1", "1-", "-3", "3-3", "24-1", "1-0", "1-25", "a-b", "1-2-3"] {
            assert_eq!(invalid.parse::<ScrubWindow>(), Err(ScrubWindowError), "{invalid}");
        }
    }

    #[test]
    fn derived_rate_reads_the_rest_in_the_rest_of_the_pass() {
        let bytes = 27 * DAY_SECONDS * (10 << 20);
        assert_eq!(schedule().rate(bytes, at(0), at(0)), 10 << 20);
        assert_eq!(schedule().rate(bytes / 27, at(0), at(24 * 26)), 10 << 20);
        assert_eq!(schedule().rate(bytes / 27, at(0), at(24 * 40)), 10 << 20, "a late pass has a day");
        let at_night = ScrubSchedule { window: Some("22-4".parse().unwrap()), ..schedule() };
        assert_eq!(at_night.rate(bytes, at(0), at(0)), 40 << 20, "the window is a quarter of the day");
        assert_eq!(schedule().rate(1, at(0), at(0)), SCRUB_RATE_MIN_BYTES_PER_SECOND);
        assert_eq!(schedule().rate(u64::MAX, at(0), at(0)), 100 << 20);
        let configured = ScrubSchedule { bytes_per_second: Some(7), ..schedule() };
        assert_eq!(configured.rate(u64::MAX, at(0), at(0)), 7);
    }

    #[test]
    fn small_blobs_count_as_more() {
        assert_eq!((scrub_cost_bytes(0), scrub_cost_bytes(1 << 30)), (64 * 1024, 1 << 30));
    }
}
