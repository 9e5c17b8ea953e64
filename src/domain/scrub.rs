//! The schedule of scrubbing: when background work reads the stored blobs again, and how fast.
//!
//! A *pass* reads the blobs that were last verified before its start, the oldest first, spread evenly over nine
//! tenths of the period. The next pass starts when this time has passed. Each blob keeps its place in the order, so
//! that it is read about once in a period.
//!
//! Only the hours of the window count as time. The rate follows from the bytes that are left and the time that is left,
//! so it is constant while nothing interrupts the reads, and rises after an interruption. The last tenth of the period
//! is for delays: a rest that is left near the end of the nine tenths is read in a small part of it at a time.

use std::{fmt, str::FromStr};

use chrono::{Duration, Timelike as _};

use super::clock::Timestamp;

/// The lowest rate that is derived from the stored bytes, in bytes per second. A small store is read in a short time.
pub const SCRUB_RATE_MIN_BYTES_PER_SECOND: u64 = 1024 * 1024;

/// The bytes that a blob counts at least, because reading it costs requests.
const BLOB_COST_BYTES_MIN: u64 = 64 * 1024;

const HOUR_SECONDS: i64 = 60 * 60;

/// The time for delays has this number of parts. A rest that is late is read at the rate that reads it in one of them.
/// The rate falls while the rest shrinks, by a factor of 2.7 in each part, down to the lowest rate: even from 64 GiB per
/// second that takes 12 parts.
const DELAY_PARTS: i64 = 16;

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

    /// Returns the seconds in the window from the Unix epoch to a time. Only differences have a meaning.
    fn open_seconds_until(self, time: Timestamp) -> i64 {
        let seconds = time.timestamp() - i64::from(self.from_hour) * HOUR_SECONDS;
        let open_seconds = i64::from(self.hour_count) * HOUR_SECONDS;
        let (days, second) = (seconds.div_euclid(24 * HOUR_SECONDS), seconds.rem_euclid(24 * HOUR_SECONDS));
        days * open_seconds + second.min(open_seconds)
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

    /// Returns the time in which a pass must end.
    fn period(&self) -> Duration {
        Duration::days(i64::from(self.period_days))
    }

    /// Returns the rate at which the rest of a pass ends in time, in bytes per second.
    pub fn rate(&self, left_bytes: u64, pass_start: Timestamp, now: Timestamp) -> u64 {
        if let Some(configured) = self.bytes_per_second {
            return configured;
        }
        let (due, end) = (pass_start + self.pass_interval(), pass_start + self.period());
        let left_seconds = self.open_seconds(now, due).max(self.open_seconds(due, end) / DELAY_PARTS).max(1);
        left_bytes
            .div_ceil(u64::try_from(left_seconds).unwrap_or(1))
            .max(SCRUB_RATE_MIN_BYTES_PER_SECOND)
            .min(self.bytes_per_second_max)
    }

    /// Returns the seconds between two times in which blobs may be scrubbed. Negative if `to` is earlier.
    fn open_seconds(&self, from: Timestamp, to: Timestamp) -> i64 {
        match self.window {
            Some(window) => window.open_seconds_until(to) - window.open_seconds_until(from),
            None => (to - from).num_seconds(),
        }
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
        assert_eq!(schedule().rate(bytes / 54, at(0), at(24 * 26 + 12)), 10 << 20, "in the last day too");
        let late = (schedule().rate(bytes / 27, at(0), at(24 * 40)), DAY_SECONDS * 3 / 16);
        assert_eq!(late.0, (bytes / 27).div_ceil(late.1), "a late rest has a part of the time for delays");
        let at_night = ScrubSchedule { window: Some("22-4".parse().unwrap()), ..schedule() };
        assert_eq!(at_night.rate(bytes, at(0), at(0)), 40 << 20, "the window is a quarter of the day");
        assert_eq!(schedule().rate(1, at(0), at(0)), SCRUB_RATE_MIN_BYTES_PER_SECOND);
        assert_eq!(schedule().rate(u64::MAX, at(0), at(0)), 100 << 20);
        let configured = ScrubSchedule { bytes_per_second: Some(7), ..schedule() };
        assert_eq!(configured.rate(u64::MAX, at(0), at(0)), 7);
    }

    /// The interval between ticks, in seconds.
    const TICK_SECONDS: i64 = 60;

    /// Runs a pass that begins at a time and that workers interrupt for some hours. Returns the seconds until its end.
    fn run_pass(schedule: &ScrubSchedule, bytes: u64, start: Timestamp, pause: std::ops::Range<i64>) -> i64 {
        let (mut left_bytes, mut seconds) = (bytes, 0);
        while left_bytes > 0 {
            let now = start + Duration::seconds(seconds);
            if schedule.is_open(now) && !pause.contains(&(seconds / HOUR_SECONDS)) {
                let read_bytes = schedule.rate(left_bytes, start, now) * u64::try_from(TICK_SECONDS).unwrap();
                left_bytes = left_bytes.saturating_sub(read_bytes);
            }
            seconds += TICK_SECONDS;
        }
        seconds
    }

    #[test]
    fn pass_ends_within_its_period() {
        const TIB: u64 = 1 << 40;
        let (none, whole_day) = (0..0, "");
        // The stored TiB, the period in days, the window, and the hours without workers. The maximum rate suffices.
        let cases = [
            (1, 1, whole_day, none.clone()),
            (7, 1, whole_day, none.clone()),
            (10, 2, whole_day, none.clone()),
            (200, 30, whole_day, none.clone()),
            (220, 30, whole_day, none.clone()),
            (20, 30, whole_day, 600..660),
            (20, 30, whole_day, 640..670),
            (1, 2, "22-6", none.clone()),
            (4, 2, "22-6", none.clone()),
            (70, 30, "22-6", none.clone()),
            (1, 7, "2-3", none.clone()),
            (8, 30, "23-24", none.clone()),
            (8, 30, "22-6", 620..660),
            (1, 365, "0-1", none),
        ];
        for (tib, period_days, window, pause) in cases {
            let schedule = ScrubSchedule { period_days, window: window.parse().ok(), ..schedule() };
            // A pass starts in the window.
            let start_count = if window.is_empty() { 1 } else { 48 };
            for start in (0..start_count).map(|half_hours| at(0) + Duration::minutes(30 * half_hours)) {
                if schedule.is_open(start) {
                    let ended = Duration::seconds(run_pass(&schedule, tib * TIB, start, pause.clone()));
                    let context =
                        format!("{tib} TiB, {period_days} days, {window}, {pause:?}, {start}: {ended}");
                    assert!(ended <= Duration::days(i64::from(period_days)), "{context}");
                }
            }
        }
    }

    #[test]
    fn only_hours_in_the_window_count() {
        let at_night = ScrubSchedule { window: Some("22-6".parse().unwrap()), ..schedule() };
        let open_hours = |from, to| at_night.open_seconds(at(from), at(to)) / HOUR_SECONDS;
        assert_eq!([open_hours(0, 24), open_hours(6, 22), open_hours(5, 23), open_hours(0, 6)], [8, 0, 2, 6]);
        assert_eq!([open_hours(22, 21), open_hours(22, 24 * 10 + 22)], [0, 80]);
    }

    #[test]
    fn small_blobs_count_as_more() {
        assert_eq!((scrub_cost_bytes(0), scrub_cost_bytes(1 << 30)), (64 * 1024, 1 << 30));
    }
}
